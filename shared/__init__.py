"""What more than one service needs, one folder a concern. Nothing here imports a service."""
