"""Verify the user's nginx.conf with real nginx, stub backends and a client in containers."""
