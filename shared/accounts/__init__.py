"""Accounts: their keys, scopes and quotas, and the names in their libraries."""
