"""Webhooks: their registration, signing and delivery."""
