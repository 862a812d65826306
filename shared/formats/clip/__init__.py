"""CLIP's tokenizer, with its vocabulary."""
