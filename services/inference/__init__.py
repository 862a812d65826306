"""Generates images: an HTTP API without torch, and GPU workers behind it."""
