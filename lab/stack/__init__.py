"""Act on Docker: Compose, nginx, faults."""
