"""What every HTTP API has: application, authentication, rate limits, idempotency and its description; and requests to others."""
