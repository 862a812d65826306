"""The jobs of a cluster: `migrate` before the services, `bootstrap` after them."""
