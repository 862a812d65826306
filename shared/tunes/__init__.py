"""What scheduler and trainer share: the lease and the states of a tune."""
