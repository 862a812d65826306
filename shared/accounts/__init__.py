"""Accounts, their keys and limits, and the names that they hold."""
