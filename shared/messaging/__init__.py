"""Events between services: outbox, relay, consumers and hints, on Kafka."""
