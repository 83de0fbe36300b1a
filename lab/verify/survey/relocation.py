"""Move nginx's own listeners where an upstream's server has the same address.

A config may proxy to another `server` block of its own. The stub backend takes that address, and
the block listens elsewhere, so that requests can still reach what it leads to.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...nginxconf.routes import Listen, listens
from ...nginxconf.tree import Config, Directive
from . import Survey, every_server

FIRST_PORT = 20_000


@dataclass(frozen=True, slots=True)
class Move:
    """The `listen` directive of a file's line, with its address before and after."""

    file: str
    line: int
    old: str
    new: str

    def __str__(self) -> str:
        return (
            f"listen {self.old} ({self.file}:{self.line}): moved to {self.new}, as a stub backend"
            f" listens there"
        )


def moves(config: Config, survey: Survey) -> Iterator[Move]:
    """The moves after which no `listen` has the address of an upstream's server."""
    ports = _free_ports(config, survey)
    for line in _listen_lines(config):
        occupies = not survey.occupied.isdisjoint(_read(line))
        if occupies and (new := _elsewhere(line, ports)):
            yield Move(line.file, line.line, line.args[0], new)


def _listen_lines(config: Config) -> Iterator[Directive]:
    for server in every_server(config):
        yield from (line for line in server.all("listen") if line.args)


def _read(line: Directive) -> tuple[Listen, ...]:
    return tuple(listens(Directive("server", (), block=(line,))))


def _free_ports(config: Config, survey: Survey) -> dict[int, int]:
    """A free port for each port to leave; listeners that share a port still do."""
    used = {endpoint.port for endpoint in survey.endpoints}
    used |= {listen.port for line in _listen_lines(config) for listen in _read(line)}
    free = (port for port in range(FIRST_PORT, 65_536) if port not in used)
    return {port: next(free) for port in sorted({listen.port for listen in survey.occupied})}


def _elsewhere(line: Directive, ports: Mapping[int, int]) -> str:
    """Another address for a `listen`; empty for a range of ports."""
    listen, *others = _read(line)
    if others:
        return ""
    if not listen.port:
        return f"{listen.address}.nginx"
    port = ports[listen.port]
    return str(port) if listen.address == "*" else f"{listen.address}:{port}"


def moved(config: Config, changes: Sequence[Move]) -> Config:
    """The config with its listeners moved."""
    by_place = {(move.file, move.line, move.old): move.new for move in changes}

    def change(line: Directive) -> Directive:
        inner = None if line.block is None else tuple(map(change, line.block))
        key = line.file, line.line, line.args[0] if line.args else ""
        args = line.args
        if line.name == "listen" and key in by_place:
            args = (by_place[key], *line.args[1:])
        return replace(line, args=args, block=inner)

    return replace(config, directives=tuple(map(change, config.directives)))


def rewritten(content: bytes, changes: Sequence[Move]) -> bytes:
    """The content of a file with its listeners moved; every line keeps its number."""
    lines = content.splitlines(keepends=True)
    for move, count in Counter(changes).items():
        old = re.compile(rb"(\blisten\s+[\"']?)" + re.escape(move.old.encode()) + rb"(?=[\s;\"'])")
        text = b"".join(lines[move.line - 1 :])  # the address may be on a later line
        text = old.sub(rb"\g<1>" + move.new.encode(), text, count=count)
        lines = [*lines[: move.line - 1], *text.splitlines(keepends=True)]
    return b"".join(lines)
