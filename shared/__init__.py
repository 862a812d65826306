"""What more than one service needs, one responsibility a file. Nothing here imports a service."""
