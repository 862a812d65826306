"""Fetches assets that are named by address or repository."""
