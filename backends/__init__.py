"""The backends of the lab: one image, one service for each backend."""
