"""The web pages, and the merged API description."""
