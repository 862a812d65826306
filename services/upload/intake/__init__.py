"""Intake: checks every uploaded file, and registers the LoRAs of tunes."""
