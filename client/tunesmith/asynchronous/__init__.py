"""The asynchronous client. `python -m tests.support.synchronous` writes the synchronous one from it."""
