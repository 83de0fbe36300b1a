"""Replay an access log by each method for which the log has the data."""

import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from ..errors import UsageError
from ..nginxconf import methods, sources
from ..nginxconf.methods import Varied
from ..nginxconf.model import Upstream
from .spread import SAMPLE, Spread, Traffic, spread

UNSEEN = {
    Varied.SESSIONS: "its cookie is set by nginx, and is not in the log",
    Varied.PROMPTS: "the prompt is not in the log",
}
NO_ADDRESSES = {Varied.ADDRESSES: "the client's address is not in the log"}
LARGE = 50_000  # requests from which on methods are replayed in parallel processes


@dataclass(frozen=True, slots=True)
class WhatIf:
    """How each method would have spread the requests of a log.

    `left_out` gives the reason for each method that the log has no data for; `assumptions` lists
    what the replay assumes.
    """

    requests: int
    seconds: float
    malformed: int
    malformed_lines: tuple[str, ...]
    spreads: tuple[Spread, ...]
    left_out: dict[str, str]
    assumptions: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "malformed": self.malformed,
            "malformed_lines": list(self.malformed_lines),
            "methods": [spread.as_dict() for spread in self.spreads],
            "left_out": self.left_out,
            "assumptions": list(self.assumptions),
        }


def whatif(
    log: Traffic,
    names: Sequence[str],
    servers: Sequence[str],
    *,
    weights: str = "",
    key: str = "$request_uri",
    service_time: float = 0.0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> WhatIf:
    """Replay a log by each of the methods `names`; `servers` are as nginx's `server` lines.

    `key` is the hash key of the hash methods. `service_time` is how long a request without a
    duration in the log was taken to last. For a long log, `on_progress` is called with each method
    that has been replayed. UsageError if the log has the data for none of the methods.
    """
    unseen = UNSEEN if log.addressed else UNSEEN | NO_ADDRESSES
    left_out = {
        name: unseen[varied] for name in names if (varied := methods.method(name).varied) in unseen
    }
    if len(left_out) == len({*names}):
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UsageError(f"no method can be replayed: {reasons}", "--methods least_conn")
    upstreams = [
        sources.from_method(name, servers, weights, hash_key(name, key), "header", True)[0]
        for name in names
        if name not in left_out
    ]
    return WhatIf(
        len(log),
        log.seconds,
        log.malformed,
        tuple(f"line {line.number}: {line.reason}" for line in log.first_malformed),
        tuple(_spreads(log, upstreams, on_progress)),
        left_out,
        (*_assumptions(log, service_time), *_without_key(log, names)),
    )


def hash_key(method: str, key: str) -> str:
    """Return `key` for a method that hashes a key, "" for any other."""
    return key if methods.method(method).key else ""


def server_texts(text: str) -> list[str]:
    """Return the servers that --servers names, or as many as it says if it is a number.

    UsageError for a name that is there twice: the result has one entry for each name.
    """
    if not re.fullmatch(r"[-+]?\d+(?:\.\d*)?", text):
        servers = [part.strip() for part in text.split(",") if part.strip()]
        for name, times in Counter(server.split()[0] for server in servers).items():
            if times > 1:
                raise UsageError(
                    f'--servers names "{name}" {times} times',
                    "name each server once; --weights gives one of them more requests",
                )
        return servers
    if not (text.isdecimal() and 1 <= int(text) <= 10_000):
        raise UsageError(
            f"--servers {text} is out of range", "a number from 1 to 10000, or a:1,b:1"
        )
    return [f"server-{number}" for number in range(1, int(text) + 1)]


def _spreads(
    log: Traffic, upstreams: Sequence[Upstream], on_progress: Callable[[str], None]
) -> Iterator[Spread]:
    """Yield a Spread for each upstream, in order; a long log is replayed in several processes."""
    if len(log) < LARGE:
        yield from (spread(upstream, log) for upstream in upstreams)
        return
    # the workers are forked, and share the log without a copy; as an argument it would be sent
    # to a worker once for each method
    forked = get_context("fork")
    with ProcessPoolExecutor(mp_context=forked, initializer=_keep, initargs=(log,)) as pool:
        for replayed in pool.map(_spread_of_kept, upstreams):
            on_progress(replayed.method)
            yield replayed


_kept: list[Traffic] = []


def _keep(log: Traffic) -> None:
    """Keep the log in a worker process, which ends with its replays.

    A replay makes no cycles, and the garbage collector would visit the log's millions of objects.
    """
    gc.disable()
    _kept[:] = [log]


def _spread_of_kept(upstream: Upstream) -> Spread:
    return spread(upstream, _kept[0])


def _without_key(log: Traffic, names: Sequence[str]) -> Iterator[str]:
    """Yield what the hash methods do with requests that have no key, if there are any."""
    if (empty := log.keys.count(b"")) and any(methods.method(name).key for name in names):
        yield f"requests whose key is empty or not in the log ({empty:,}) take turns, as in nginx"


def _assumptions(log: Traffic, service_time: float) -> Iterator[str]:
    yield "a request lasts as long on every server as in the log"
    yield "every server is healthy; nginx starts fresh and all workers share one zone"
    if not log.exact:
        yield "the log has whole seconds: requests of one second are taken 1 ms apart, in its order"
    if missing := len(log) - log.timed:
        lasting = f"{service_time:g} s" if service_time else "0 s (--service-time sets it)"
        yield f"requests that have no duration in the log ({missing:,}) last {lasting}"
    if log.unproxied:
        yield f"requests that nginx passed to no server ({log.unproxied:,}) are left out"
    if len(log) > SAMPLE:
        yield f"what happens without the hottest server is from the first {SAMPLE:,} requests"
    yield "random and random_two are drawn with seed 1"
