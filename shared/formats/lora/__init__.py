"""LoRA files of every layout, read as one canonical form, without torch."""
