"""Install engine, Compose, images and .venv on a bare machine; standard library only."""
