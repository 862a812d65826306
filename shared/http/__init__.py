"""What every HTTP API has: application, authentication, idempotency and outbound requests."""
