"""The small checkpoints: draws a captioned picture set, and trains real SD 1.5 and SDXL classes, scaled down, on it."""
