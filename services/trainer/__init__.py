"""Trains LoRAs: claims a tune, trains it in a child process, hands the LoRA over."""
