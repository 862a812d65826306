"""The small checkpoints: draws images with captions, and trains scaled-down models of SD 1.5's and SDXL's classes on them."""
