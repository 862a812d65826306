"""The S3 store, the rows that describe its objects, and their collection."""
