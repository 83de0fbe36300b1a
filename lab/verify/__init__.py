"""The user's own nginx.conf: a stage with real nginx, stand-ins and a caller on it."""
