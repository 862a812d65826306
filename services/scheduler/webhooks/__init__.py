"""Webhooks: their secrets, signatures and deliveries."""
