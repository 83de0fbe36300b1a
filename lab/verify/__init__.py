"""Verify the user's nginx.conf with real nginx, stand-ins and a client in containers."""
