"""Say why the first simulation of an installation takes longer."""

from ..simulate import fast
from .terminal import note


def announce_compiling() -> None:
    """Print on stderr that the simulator is about to be compiled, if it has not been yet."""
    if not fast.is_compiled():
        note("compiling the simulator, once: up to a minute")
