"""The events of a tune, as pages and as a stream."""
