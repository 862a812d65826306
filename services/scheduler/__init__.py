"""Takes tunes, queues them, watches their leases, and ends them."""
