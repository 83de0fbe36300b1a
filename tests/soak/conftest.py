"""Faults are proved on a lab of five backends, and on the plugin's own of three."""

from tests.heavy.conftest import five

__all__ = ["five"]
