"""Signing a browser in to the console, and out."""
