"""What nginx must do with each request, before it does it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request on its way to an upstream.

    `key` is the value of the hash key; `sticky` the value of the first non-empty sticky lookup
    variable; `t` the second at which nginx picks; `duration` how long the chosen server is busy
    with it (seconds, None: done before the next arrival); `fail` says how a server answers if
    this request tries it: refused, error, timeout, invalid_header, or http_500 and the like.
    `took` is how long such a failed attempt lasts, in seconds, by server.
    """

    key: bytes = b""
    client_ip: str = "127.0.0.1"
    sticky: str = ""
    method: str = "GET"
    t: float = 0.0
    duration: float | None = None
    fail: Mapping[str, str] = field(default_factory=dict)
    took: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pick:
    """The server that answers (None: no live upstreams), and every server tried, in order.

    `candidates` is empty where nginx decides exactly; else each server that nginx may pick on
    the first attempt, with its probability where that is known (None where it is not).
    """

    server: str | None
    attempts: tuple[str, ...]
    candidates: Mapping[str, float | None] = field(default_factory=dict)
