"""`lab setup`: what `make setup` does in a checkout."""

from ..setup import steps


def setup() -> None:
    """Install what is missing on this machine.

    That may be the Docker engine, Compose v2 and the lab's images.
    """
    steps.set_up()
