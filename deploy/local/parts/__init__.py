"""What a stack runs beside our services: PostgreSQL, Kafka, the S3 store and the edge, each as a process to supervise."""
