"""The operator's API: accounts, keys and limits."""
