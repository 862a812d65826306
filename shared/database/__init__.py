"""Sessions, and the tables that they read and write."""
