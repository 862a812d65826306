"""The S3 store, the rows that describe its objects, their collection, and a cache of checkpoints."""
