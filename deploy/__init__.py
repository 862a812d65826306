"""How Tunesmith is run: the local stack, containers and the edge."""
