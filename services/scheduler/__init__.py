"""The scheduler: it accepts tunes, queues them, watches their leases, and ends them."""
