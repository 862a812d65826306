"""The asset library: accepts uploads, imports files, checks both, and registers the LoRAs of tunes."""
