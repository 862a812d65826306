"""The LoRA training itself, in the training process; it knows neither database, store nor broker."""
