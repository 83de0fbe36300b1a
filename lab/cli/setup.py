"""`lab setup`: what `make setup` does in a checkout."""

from ..setup import steps


def setup() -> None:
    """Install what is missing on this machine: engine, Compose v2, the lab's images."""
    steps.set_up()
