"""Imports: the service itself fetches a file from a URL or a model repository."""
