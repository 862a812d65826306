"""The events of a tune over HTTP, in pages and as a stream."""
