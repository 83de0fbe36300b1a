"""nginx's debug log of the verify traffic: which connection carried which request."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..evidence import trace
from ..evidence.access_log import Hit
from ..evidence.trace import Step

DIRECTIVE = re.compile(rb"\berror_log\s+[^;{}#]+;")
REQUEST_LINE = re.compile(
    rb"\d+:\S+ \S+ \[debug\] (?P<worker>\d+)#\d+: \*(?P<connection>\d+) "
    rb'http request line: "\S+ (?P<target>.*) HTTP/1\.[01]"'
)


@dataclass(frozen=True, slots=True)
class Carrier:
    """The worker and the connection of a request, and its number on that connection."""

    worker: int
    connection: int
    number: int


def carriers(lines: Sequence[bytes]) -> dict[bytes, Carrier]:
    """The carrier of each request target; of the last request where several had one target."""
    counts: dict[int, int] = {}
    by_target: dict[bytes, Carrier] = {}
    for line in lines:
        if match := REQUEST_LINE.match(line):
            connection = int(match["connection"])
            counts[connection] = counts.get(connection, 0) + 1
            by_target[match["target"]] = Carrier(
                int(match["worker"]), connection, counts[connection]
            )
    return by_target


def joined(
    lines: Sequence[bytes], hits: Sequence[Hit], targets: Mapping[str, bytes]
) -> tuple[tuple[Hit, ...], Sequence[Step] | None]:
    """The hits with worker and connection, and nginx's order of picks.

    `targets` holds each request's target by id. Without a complete trace the hits are unchanged
    and the order is None.
    """
    by_target = carriers(lines)
    numbered = tuple(
        replace(
            hit,
            pid=carrier.worker,
            connection=carrier.connection,
            connection_requests=carrier.number,
        )
        for hit in hits
        if (carrier := by_target.get(targets[hit.request_id]))
    )
    order = trace.order(lines, numbered)
    return (
        (tuple(hits), None) if order.gap or len(numbered) < len(hits) else (numbered, order.steps)
    )


def with_debug_log(content: bytes, path: str) -> bytes:
    """A config file in which every `error_log` has a debug log at `path` beside it.

    An `error_log` in `http` or deeper replaces that of the command line. Line numbers stay.
    """
    return DIRECTIVE.sub(lambda match: match[0] + f" error_log {path} debug;".encode(), content)
