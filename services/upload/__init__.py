"""The asset library: takes uploads, checks them, and registers the LoRAs of tunes."""
