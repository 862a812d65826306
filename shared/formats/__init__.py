"""The file formats of uploads, read without torch."""
