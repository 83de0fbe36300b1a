"""The output of a service, line by line."""

from collections.abc import Iterator

from . import compose, sdk
from .compose import Lab


def log_lines(lab: Lab, name: str, *, follow: bool = False) -> Iterator[str]:
    """The lines that a service has printed so far; with `follow` also later ones."""
    stream = sdk.handle(compose.container(lab, name)).logs(stream=True, follow=follow)
    rest = b""
    for piece in stream:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    if rest:
        yield rest.decode(errors="replace")
