"""The local stack: real PostgreSQL, Kafka, S3 store and edge from wheels, and our services, under one supervisor."""
