"""The synchronous client, which is written from the asynchronous one. Only `runtime.py` is written by hand."""
