"""Replay the requests of a log by one method; count requests and peaks in flight by server."""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import oracle
from ..errors import UsageError
from ..nginxconf import methods
from ..nginxconf.model import Upstream
from ..nginxconf.request import Request
from ..nginxconf.variables import Evaluator, Variables, compile_text
from ..oracle import Arrival
from .log_format import Malformed, Visit, visits

Numbers = npt.NDArray[np.float64]
Servers = npt.NDArray[np.int32]

LONGEST = 86_400  # seconds that a request may be said to last
NO_ADDRESS = "127.0.0.1"  # the client where the log has no address
SHOWN = 10  # malformed lines that are named
SAMPLE = 200_000  # requests that are replayed a second time, without the hottest server


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """The requests of a log in the order in which they began, column by column.

    `starts` (since the first request's start) and `lasted` are in seconds. `exact` says whether
    the log's times have milliseconds; `timed` and `addressed` are the numbers of requests with a
    duration and with a client address in it. The others come from NO_ADDRESS. `unproxied` requests
    of the log are left out: nginx passed them to no server.
    """

    starts: Numbers
    lasted: Numbers
    keys: tuple[bytes, ...]
    clients: tuple[str, ...]
    exact: bool
    timed: int
    addressed: int
    malformed: int = 0
    first_malformed: tuple[Malformed, ...] = ()
    unproxied: int = 0

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def seconds(self) -> float:
        """Return the seconds from the first arrival to the last."""
        return float(self.starts[-1])

    def first(self, requests: int) -> "Traffic":
        """Return the traffic of the first `requests` requests."""
        if requests >= len(self):
            return self
        return replace(
            self,
            starts=self.starts[:requests],
            lasted=self.lasted[:requests],
            keys=self.keys[:requests],
            clients=self.clients[:requests],
        )

    def arrivals(self, *, lasting: bool) -> Iterator[Arrival]:
        """Yield the requests as the oracle takes them, with their durations if `lasting`."""
        durations = self.lasted.tolist() if lasting else [None] * len(self)
        columns = zip(self.starts.tolist(), durations, self.keys, self.clients, strict=True)
        for start, duration, key, client in columns:
            yield Arrival(key, client, t=start, duration=duration)


@dataclass(frozen=True, slots=True)
class Spread:
    """The result of replaying a log by one method.

    `requests`, `busy` (seconds) and `peak` (the most requests in flight at once) are by server.
    `hottest` is the server with the highest peak, the first on a tie. The first SAMPLE requests
    are then replayed without it: `moved` is the share of the other servers' requests that go to
    another server than before; `peak_without` is the highest peak of any server.
    """

    method: str
    requests: Mapping[str, int]
    busy: Mapping[str, float]
    peak: Mapping[str, int]
    hottest: str
    moved: float
    peak_without: int

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "method": self.method,
            "requests": dict(self.requests),
            "busy_seconds": {name: round(value, 3) for name, value in self.busy.items()},
            "peak_in_flight": dict(self.peak),
            "hottest": self.hottest,
            "moved_without_hottest": round(self.moved, 4),
            "peak_in_flight_without_hottest": self.peak_without,
        }


# --- reading ------------------------------------------------------------------------------


def traffic(
    lines: Iterable[bytes],
    key: str = "$request_uri",
    log_format: str = "",
    seconds: float = 0.0,
    source: str = "the log",
) -> Traffic:
    """Read a log.

    `key` is what a hash method hashes; `seconds` is the duration of each request without one in
    the log. UsageError for a log without requests, by its name `source`.
    """
    if not 0 <= seconds <= LONGEST:
        raise UsageError(
            f"--service-time {seconds:g} is out of range", f"seconds from 0 to {LONGEST:,}"
        )
    evaluate = compile_text(key, Variables(), "--key")
    rows = _Rows(seconds)
    for entry in visits(lines, log_format):
        rows.add(entry, evaluate)
    return rows.traffic(source)


class _Rows:
    """The columns of a log while it is read; equal texts share one object."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun: list[float] = []
        self.lasted: list[float] = []
        self.keys: list[bytes] = []
        self.clients: list[str] = []
        self.texts: dict[Any, Any] = {}
        self.malformed: list[Malformed] = []
        self.malformed_count = self.timed = self.addressed = self.unproxied = 0
        self.exact = True
        self.second, self.number = -1.0, 0

    def add(self, entry: Visit | Malformed, evaluate: Evaluator) -> None:
        """Add one line of the log."""
        if isinstance(entry, Malformed):
            self.malformed_count += 1
            self.malformed += [entry] if self.malformed_count <= SHOWN else []
            return
        if not entry.proxied:
            self.unproxied += 1
            return
        lasted = self.seconds if entry.seconds is None else entry.seconds
        self.timed += entry.seconds is not None
        self.exact = self.exact and entry.exact
        self.begun.append(self._end(entry) - lasted)
        self.lasted.append(lasted)
        self.keys.append(self._shared(hash_key(evaluate, entry)))
        self.addressed += bool(entry.client_ip)
        self.clients.append(self._shared(entry.client_ip or NO_ADDRESS))

    def _end(self, entry: Visit) -> float:
        """Return when a request ended; those of one whole second are put 1 ms apart, in order."""
        if entry.exact:
            return entry.end
        self.number = self.number + 1 if entry.end == self.second else 0
        self.second = entry.end
        return entry.end + min(self.number / 1000, 0.999)

    def _shared(self, text: Any) -> Any:
        return self.texts.setdefault(text, text)

    def traffic(self, source: str) -> Traffic:
        """Return all requests in the order of arrival."""
        if not self.begun and self.unproxied:
            raise UsageError(
                f'nginx passed no request of {source} to a server: $upstream_addr is always "-"',
                "the log of an nginx that proxies",
            )
        if not self.begun and not self.malformed:
            raise UsageError(f"{source} is empty", "a log with at least one request")
        if not self.begun:
            first = self.malformed[0]
            hint = "--format with nginx's log_format; without it, combined or JSON lines"
            raise UsageError(f"no request in {source}; line {first.number}: {first.reason}", hint)
        begun = np.array(self.begun)
        order = np.argsort(begun, kind="stable")
        return Traffic(
            np.round(begun[order] - begun[order[0]], 6),
            np.array(self.lasted)[order],
            tuple(self.keys[at] for at in order.tolist()),
            tuple(self.clients[at] for at in order.tolist()),
            self.exact,
            self.timed,
            self.addressed,
            self.malformed_count,
            tuple(self.malformed),
            self.unproxied,
        )


def hash_key(evaluate: Evaluator, entry: Visit) -> bytes:
    """Return the hash key of a request.

    It is empty where nginx would reject the request, and where the log lacks a needed address.
    """
    request = Request(entry.uri, entry.client_ip, entry.method, entry.headers)
    try:
        return evaluate(request)
    except (UsageError, OSError):
        return b""


# --- replaying ----------------------------------------------------------------------------


def spread(upstream: Upstream, log: Traffic, seed: int = 1) -> Spread:
    """Replay a log by one method, then again without its hottest server.

    `seed` is that of the draws of random and random_two.
    """
    names = [server.name for server in upstream.servers]
    picked = picks(upstream, log, seed)
    peaks = peaks_in_flight(log, picked, len(names))
    hottest = int(np.argmax(peaks))
    sample = log.first(SAMPLE)
    before = picked[: len(sample)]
    picked_without = picks(_down(upstream, hottest), sample, seed)
    others = (before != hottest) & (before >= 0)
    return Spread(
        upstream.method,
        {name: int((picked == at).sum()) for at, name in enumerate(names)},
        {name: float(log.lasted[picked == at].sum()) for at, name in enumerate(names)},
        dict(zip(names, peaks, strict=True)),
        names[hottest],
        float((before != picked_without)[others].mean()) if others.any() else 0.0,
        max(peaks_in_flight(sample, picked_without, len(names))),
    )


def picks(upstream: Upstream, log: Traffic, seed: int = 1) -> Servers:
    """Return the number of the server that takes each request; -1 where no server is left.

    The durations of the requests count only where the requests in flight decide.
    """
    number: dict[str | None, int] = {None: -1}
    number |= {server.name: at for at, server in enumerate(upstream.servers)}
    lasting = upstream.record.by_load or any(server.max_conns for server in upstream.servers)
    # a hash of an empty key, or that finds only servers that are down, falls back on round robin,
    # which has a state
    stateful = any(server.down for server in upstream.servers) or not all(log.keys)
    if upstream.record.by_request and not stateful and not lasting:
        return _picks_by_request(upstream, log, number)
    arrivals = log.arrivals(lasting=lasting)
    predicted = oracle.predict(upstream, arrivals, draw=random.Random(seed).randrange)
    return np.fromiter((number[pick.server] for pick in predicted), np.int32, len(log))


def _picks_by_request(
    upstream: Upstream, log: Traffic, number: Mapping[str | None, int]
) -> Servers:
    """Predict once for each distinct client address, or key: the pick depends on nothing else."""
    by_address = methods.method(upstream.method).varied is methods.Varied.ADDRESSES
    texts: tuple[Any, ...] = log.clients if by_address else log.keys
    pairs = zip(log.keys, log.clients, strict=True)
    distinct = {text: Arrival(*pair) for text, pair in zip(texts, pairs, strict=True)}
    predicted = oracle.predict(upstream, distinct.values())
    servers = {text: number[pick.server] for text, pick in zip(distinct, predicted, strict=True)}
    return np.fromiter((servers[text] for text in texts), np.int32, len(log))


def _down(upstream: Upstream, at: int) -> Upstream:
    """Return the upstream with one more server marked down; it keeps its place in every hash."""
    servers = [
        replace(server, down=server.down or number == at)
        for number, server in enumerate(upstream.servers)
    ]
    return replace(upstream, servers=tuple(servers))


def peaks_in_flight(log: Traffic, picked: Servers, servers: int) -> list[int]:
    """Return the peak of requests in flight of each server."""
    return [peak(log.starts[picked == at], log.lasted[picked == at]) for at in range(servers)]


def peak(starts: Numbers, lasted: Numbers) -> int:
    """Return the most requests in flight at once; those that end when one begins do not count."""
    if not len(starts):
        return 0
    moments = np.concatenate([starts, starts + lasted])
    steps = np.repeat([1, -1], len(starts))
    return max(1, int(np.cumsum(steps[np.lexsort((steps, moments))]).max()))
