"""Events between services, on Kafka: outbox, relay, consumers, inbox and hints."""
