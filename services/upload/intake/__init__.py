"""Checks what was uploaded, and registers the LoRAs of tunes."""
