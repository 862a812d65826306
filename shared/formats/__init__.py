"""The file formats that people upload, read without torch."""
