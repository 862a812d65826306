"""Sessions, the tables that they read and write, and notifications."""
