"""Datasets over HTTP: images, captions and settings that are kept while a tune is prepared."""
