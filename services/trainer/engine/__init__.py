"""The LoRA trainer itself; knows neither database, store nor broker."""
