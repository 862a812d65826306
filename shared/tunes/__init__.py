"""What the scheduler and the trainer share: leases, transitions, options, webhooks and memory of tunes."""
