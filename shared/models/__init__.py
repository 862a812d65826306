"""Models on disk and in memory: checkpoints, LoRA files, samplers. Imports torch: only GPU processes import this."""
