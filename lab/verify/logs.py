"""The logs that the lab adds to the user's config, joined with the verify traffic."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import structs

from ..evidence import trace
from ..evidence.access_log import Hit
from ..evidence.trace import Step

ERROR_LOG = re.compile(rb"\berror_log\s+[^;{}#]+;")
ACCESS_LOG = re.compile(rb"\baccess_log\s+[^;{}#]+;")
HTTP = re.compile(rb"(?m)^([^#\n]*?(?<![\w$-])http\s*\{)")
# nginx's own times, in the order of the fields of `timed`
FORMAT = (
    "log_format nginx_llm_lab '$msec $request_time $upstream_header_time"
    " $upstream_response_time $request_uri';"
)
REQUEST_LINE = re.compile(
    rb"\d+:\S+ \S+ \[debug\] (?P<worker>\d+)#\d+: \*(?P<connection>\d+) "
    rb'http request line: "\S+ (?P<target>.*) HTTP/1\.[01]"'
)
EVENT = re.compile(
    rb"\d+:\S+ \S+ \[debug\] \d+#\d+: \*(?P<connection>\d+) "
    rb"(?:(?P<request>http request line: )|(?P<pick>get [a-z0-9 ]+ peer, try: )|free rr peer \d)"
)


@dataclass(frozen=True, slots=True)
class Carrier:
    """The worker and the connection of a request, and its number on that connection."""

    worker: int
    connection: int
    number: int


def carriers(lines: Sequence[bytes]) -> dict[bytes, Carrier]:
    """The carrier of each request target; if several requests had it, that of the last."""
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
        structs.replace(
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


def without_auth_requests(lines: Sequence[bytes]) -> list[bytes]:
    """The lines without the picks and releases for `auth_request`, which precede a request's own.

    Every line stays, because a line also ends the event before it.
    """
    kept = list(lines)
    events: dict[bytes, list[int]] = {}  # by connection, those of its request so far
    released: dict[bytes, bool] = {}  # whether the last of them is a release
    for number, line in enumerate(lines):
        if (match := EVENT.match(line)) is None:
            continue
        connection = match["connection"]
        if match["pick"] and released.get(connection):
            for earlier in events.pop(connection):
                kept[earlier] = lines[earlier].partition(b" *")[0] + b" for auth_request"
        events[connection] = [] if match["request"] else [*events.get(connection, []), number]
        released[connection] = not (match["pick"] or match["request"])
    return kept


def with_debug_log(content: bytes, path: str) -> bytes:
    """A config file in which every `error_log` has a debug log at `path` beside it.

    An `error_log` in `http` or deeper replaces that of the command line. Line numbers stay.
    """
    return ERROR_LOG.sub(lambda match: match[0] + f" error_log {path} debug;".encode(), content)


def with_access_log(content: bytes, path: str) -> bytes:
    """A config file whose requests are logged at `path` with nginx's own times.

    An `access_log` in `server` or deeper replaces that of `http`. Line numbers stay.
    """
    directive = f" access_log {path} nginx_llm_lab;".encode()
    content = ACCESS_LOG.sub(
        lambda match: (b"" if b" off" in match[0] else match[0]) + directive, content
    )
    return HTTP.sub(lambda match: match[1] + b" " + FORMAT.encode() + directive, content, count=1)


def timed(
    lines: Sequence[bytes], hits: Sequence[Hit], targets: Mapping[str, bytes]
) -> tuple[Hit, ...]:
    """The hits with nginx's own times; unchanged unless every hit has them."""
    times = {
        line[4]: line[:4] for line in (text.split(b" ", 4) for text in lines) if len(line) == 5
    }
    timed_hits = tuple(
        structs.replace(
            hit,
            msec=float(fields[0]),
            request_time=float(fields[1]),
            upstream_header_time=(float(fields[2]),),
            upstream_response_time=(float(fields[3]),),
        )
        for hit in hits
        if (fields := times.get(targets[hit.request_id])) and b"-" not in fields
    )
    return timed_hits if len(timed_hits) == len(hits) else tuple(hits)
