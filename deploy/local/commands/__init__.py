"""The commands of `tunesmith` that need a clone; the client's own are in `client/tunesmith`."""
