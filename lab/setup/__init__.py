"""From a bare machine to engine, Compose, images and .venv; standard library only."""
