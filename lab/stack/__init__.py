"""What acts on Docker: Compose, nginx, faults."""
