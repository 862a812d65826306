"""What both GPU workers know of models: loading checkpoints, LoRA files, sampling. Imports torch."""
