"""Logs of a simulated nginx, correct or faulty, to measure the reliability of verdicts.

It shares no code with the oracle, so that both do not have the same errors about nginx. Servers
are numbered from 0; times are milliseconds.
"""

import heapq
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import md5
from ipaddress import IPv4Address
from itertools import accumulate
from zlib import crc32

from msgspec import structs

from ..evidence.access_log import Hit
from ..evidence.trace import PICK, RELEASE, TIMED, Step

EPOCH = 1_700_000_000_000  # the simulated clock's zero
SWAPPED = 0.01  # of the events of two workers that the trace leaves open which came first


@dataclass(frozen=True, slots=True)
class Truth:
    """What a simulated nginx really runs; a `share` of the requests goes to `diverted_to`.

    `order` lists the servers as nginx has them; `slowness` multiplies each server's times.
    """

    method: str
    weights: tuple[int, ...] = (1, 1, 1)
    workers: int = 2
    zone: bool = True
    max_conns: tuple[int, ...] = ()
    down: frozenset[int] = frozenset()
    backup: frozenset[int] = frozenset()
    order: tuple[int, ...] = ()
    key: str = "$request_uri"
    sticky: bool = False
    share: float = 0.0
    diverted_to: int = -1
    slowness: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """`number` requests by `users` at a time; answers take `shortest` plus `mean` ms on average.

    A clock lags by up to `stall` ms at one in fifty readings.
    """

    number: int
    users: int = 1
    shortest: float = 1.0
    mean: float = 2.0
    stall: float = 6.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of a run: its log, and nginx's own order of picks and releases."""

    hits: tuple[Hit, ...]
    order: tuple[Step, ...]


@dataclass(slots=True)
class Memory:
    """The state of workers that share a zone: turns, requests in flight, average times."""

    scores: list[int]
    open: list[int]
    header: list[int]


@dataclass(slots=True)
class Call:
    """One request in the simulation."""

    number: int
    worker: int
    start: int
    address: str
    uri: str
    cookie: str
    visitor: int
    server: int | None = None
    lasts: int = 0


def serve(truth: Truth, traffic: Traffic, seed: int) -> Recorded:
    """Run one simulated nginx under traffic."""
    return Simulation(truth, traffic, random.Random(seed)).run()


def server_name(number: int) -> str:
    """A server's name in claims and logs."""
    return f"backend-{number + 1}"


def address_of(number: int) -> str:
    """A server's address, which `sticky` hashes."""
    return f"10.0.0.{number + 1}:8000"


def sticky_id(number: int) -> str:
    """The value of the cookie that binds a client to a server."""
    return md5(address_of(number).encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class Simulation:
    """The events of one run."""

    truth: Truth
    traffic: Traffic
    rng: random.Random
    hits: list[Hit] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    memories: list[Memory] = field(default_factory=list)
    begun: int = 0
    homes: dict[int, int] = field(default_factory=dict)
    events: list[tuple[float, int, str, Call | None]] = field(default_factory=list)
    serial: int = 0

    def run(self) -> Recorded:
        """Serve all the traffic."""
        self.memories = self.memories_of_workers()
        for _ in range(self.traffic.users):
            self.schedule(self.rng.random(), "begin", None)
        while self.events:
            now, _, kind, call = heapq.heappop(self.events)
            if kind == "begin" or call is None:
                self.begin(now)
            elif kind == "pick":
                self.pick(now, call)
            else:
                self.release(now, call)
        return Recorded(tuple(self.hits), tuple(interleaved(self.steps, self.rng)))

    def memories_of_workers(self) -> list[Memory]:
        """The memory of each worker; with a zone the same one for all."""
        workers = self.truth.workers
        if self.truth.zone:
            return [self.new_memory()] * workers
        return [self.new_memory() for _ in range(workers)]

    def new_memory(self) -> Memory:
        """The memory of a fresh nginx."""
        servers = len(self.truth.weights)
        return Memory([0] * servers, [0] * servers, [0] * servers)

    def schedule(self, moment: float, kind: str, call: Call | None) -> None:
        """Put an event on the heap."""
        self.serial += 1
        heapq.heappush(self.events, (moment, self.serial, kind, call))

    def clock(self, now: float) -> int:
        """The time on a worker's clock, which it may have read a while ago."""
        rng = self.rng
        lag = rng.uniform(1, self.traffic.stall) if rng.random() < 0.02 else rng.expovariate(5)
        return int(EPOCH + now - lag)

    def begin(self, now: float) -> None:
        """Let a client send its next request."""
        if self.begun == self.traffic.number:
            return
        rng, number = self.rng, self.begun
        self.begun += 1
        visitor = number if number < 20 else rng.randrange(60)
        home = self.homes.get(visitor) if self.truth.sticky else None
        call = Call(
            number,
            rng.randrange(self.truth.workers),
            self.clock(now),
            str(IPv4Address(rng.randrange(0x0100_0000, 0xDF00_0000))),
            f"/page/{number}-{rng.getrandbits(32):08x}",
            "" if home is None else f"srv={sticky_id(home)}",
            visitor,
        )
        self.schedule(now + rng.expovariate(7), "pick", call)

    def pick(self, now: float, call: Call) -> None:
        """Let a worker pick a server."""
        memory = self.memories[call.worker]
        picker = Picker(self.truth, memory, self.rng)
        call.server = picker.server(call)
        if self.is_diverted(call):
            call.server = self.truth.diverted_to % len(self.truth.weights)
        self.note(now, call, PICK)
        if call.server is None:
            self.log(now, call)
            return
        memory.open[call.server] += 1
        slow = self.truth.slowness[call.server] if self.truth.slowness else 1.0
        lasts = min(400.0, self.traffic.shortest + self.rng.expovariate(1 / self.traffic.mean))
        call.lasts = int(lasts * slow)
        self.schedule(now + lasts * slow, "release", call)

    def is_diverted(self, call: Call) -> bool:
        """Whether a request is diverted: at random; a small share at regular intervals."""
        if 0 < self.truth.share < 0.05:
            every = round(1 / self.truth.share)
            return call.number % every == every // 2
        return self.truth.share > 0 and self.rng.random() < self.truth.share

    def release(self, now: float, call: Call) -> None:
        """Let a worker release the server after a response."""
        memory = self.memories[call.worker]
        server = call.server or 0
        average = memory.header[server]
        memory.header[server] = (
            int(average * 0.95 + call.lasts * 0.05 + 0.5) if average else call.lasts
        )
        memory.open[server] -= 1
        self.note(now, call, TIMED)
        self.note(now, call, RELEASE)
        if self.truth.sticky:
            self.homes[call.visitor] = server
        self.log(now, call)

    def note(self, now: float, call: Call, kind: str) -> None:
        """Write a line of the trace."""
        name = "llm" if call.server is None else server_name(call.server)
        line, second = 4 * len(self.steps), int(EPOCH + now) // 1000
        self.steps.append(
            Step(
                f"id{call.number}",
                0,
                kind,
                failed=False,
                server=name,
                worker=call.worker,
                second=second,
                since=line,
                until=line + 1,
            )
        )

    def log(self, now: float, call: Call) -> None:
        """Write a line of the access log, and let the client send its next request."""
        end = max(self.clock(now), call.start + call.lasts)
        known = call.server is not None
        self.hits.append(
            Hit(
                (server_name(call.server),) if call.server is not None else ("llm",),
                200 if known else 502,
                end / 1000,
                (end - call.start) / 1000,
                f"id{call.number}",
                remote_addr=call.address,
                request_uri=call.uri,
                http_cookie=call.cookie,
                pid=100 + call.worker,
                upstream_status=(200 if known else 502,),
                upstream_connect_time=(0.0 if known else None,),
                upstream_header_time=(call.lasts / 1000 if known else None,),
                upstream_response_time=(call.lasts / 1000 if known else 0.0,),
            )
        )
        self.schedule(now + self.rng.expovariate(2), "begin", None)


def interleaved(steps: Sequence[Step], rng: random.Random) -> Iterable[Step]:
    """The steps as in a trace, where neighbouring lines of two workers sometimes overlap."""
    number = 0
    while number < len(steps):
        first = steps[number]
        second = steps[number + 1] if number + 1 < len(steps) else first
        if first.worker != second.worker and rng.random() < SWAPPED:
            line = first.since
            if rng.random() < 0.5:
                first, second = second, first
            yield structs.replace(first, since=line, until=line + 6)
            yield structs.replace(second, since=line + 1, until=line + 5)
            number += 2
        else:
            yield first
            number += 1


@dataclass(slots=True)
class Picker:
    """One pick by one worker."""

    truth: Truth
    memory: Memory
    rng: random.Random

    def server(self, call: Call) -> int | None:
        """The server for a request; None where none is live."""
        order = self.truth.order or tuple(range(len(self.truth.weights)))
        primaries = [n for n in order if n not in self.truth.backup]
        server = self.among(primaries, call)
        if server is None:
            server = self.among([n for n in order if n in self.truth.backup], call)
        return server

    def among(self, group: Sequence[int], call: Call) -> int | None:
        """The server of one group."""
        limits = self.truth.max_conns
        fit = [
            n
            for n in group
            if n not in self.truth.down
            and not (limits and limits[n] and self.memory.open[n] >= limits[n])
        ]
        if not fit:
            return None
        home = self.home(group, fit, call)
        if home is not None:
            return home
        if len(group) < 2:
            return fit[0]
        return METHODS[self.truth.method](self, group, fit, call)

    def home(self, group: Sequence[int], fit: Sequence[int], call: Call) -> int | None:
        """The server that a cookie binds to, charged for its turn."""
        for n in fit if self.truth.sticky else ():
            if call.cookie == f"srv={sticky_id(n)}":
                weights, scores = self.truth.weights, self.memory.scores
                total = sum(weights[i] for i in group)
                if METHODS[self.truth.method] is _round_robin and scores[n] > weights[n] - total:
                    for i in fit:
                        scores[i] += weights[i]
                    scores[n] -= sum(weights[i] for i in fit)
                return n
        return None

    def turn(self, fit: Sequence[int]) -> int:
        """Smooth weighted round robin."""
        weights, scores = self.truth.weights, self.memory.scores
        for n in fit:
            scores[n] += weights[n]
        best = max(fit, key=lambda n: (scores[n], -fit.index(n)))
        scores[best] -= sum(weights[n] for n in fit)
        return best

    def least(self, fit: Sequence[int], loads: Sequence[int]) -> int:
        """The server with the least load per weight; ties take turns."""
        weights = self.truth.weights
        best = fit[0]
        for n in fit:
            if loads[n] * weights[best] < loads[best] * weights[n]:
                best = n
        tied = [n for n in fit if loads[n] * weights[best] == loads[best] * weights[n]]
        return best if len(tied) == 1 else self.turn(tied)

    def draw(self, group: Sequence[int]) -> int:
        """One draw by weight among all servers of a group, eligible or not."""
        return self.rng.choices(group, [self.truth.weights[n] for n in group])[0]


def _round_robin(picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    return picker.turn(fit)


def _least_conn(picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    return picker.least(fit, picker.memory.open)


def _least_time(picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    """In steps of 20 ms; on a tie a winner with another weight excludes later servers."""
    memory, weights = picker.memory, picker.truth.weights
    steps = [5000 if time > 5000 else (time // 20 + 1) * 20 for time in memory.header]
    loads = [step * (1 + held) for step, held in zip(steps, memory.open, strict=True)]
    first = fit[0]
    for n in fit:
        if loads[n] * weights[first] < loads[first] * weights[n]:
            first = n
    tied = [n for n in fit if loads[n] * weights[first] == loads[first] * weights[n]]
    if len(tied) == 1:
        return first
    best, total = tied[0], 0
    for n in tied:
        if loads[n] * weights[best] == loads[tied[0]] * weights[n]:
            memory.scores[n] += weights[n]
            total += weights[n]
            best = n if memory.scores[n] > memory.scores[best] else best
    memory.scores[best] -= total
    return best


def _random(picker: Picker, group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    for _ in range(21):
        server = picker.draw(group)
        if server in fit:
            return server
    return picker.turn(fit)


def _random_two(picker: Picker, group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    held, weights, first = picker.memory.open, picker.truth.weights, None
    for _ in range(21):
        server = picker.draw(group)
        if server not in fit or server == first:
            continue
        if first is not None:
            worse = held[server] * weights[first] > held[first] * weights[server]
            return first if worse else server
        first = server
    return picker.turn(fit)


def _by_sum(picker: Picker, group: Sequence[int], number: int) -> int:
    """The server into whose share of the weights a number falls."""
    ends = list(accumulate(picker.truth.weights[n] for n in group))
    return next(n for n, end in zip(group, ends, strict=True) if number % ends[-1] < end)


def _ip_hash(picker: Picker, group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    chain = 89
    for _ in range(21):
        for octet in IPv4Address(call.address).packed[:3]:
            chain = (chain * 113 + octet) % 6271
        server = _by_sum(picker, group, chain)
        if server in fit:
            return server
    return picker.turn(fit)


def _key(picker: Picker, call: Call) -> bytes:
    return (call.address if picker.truth.key == "$remote_addr" else call.uri).encode()


def _hash(picker: Picker, group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    total = 0
    for attempt in range(21):
        prefix = str(attempt).encode() if attempt else b""
        total += (crc32(prefix + _key(picker, call)) >> 16) & 0x7FFF
        server = _by_sum(picker, group, total)
        if server in fit:
            return server
    return picker.turn(fit)


def _hash_consistent(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    ring = ring_of(picker.truth.weights)
    start = bisect_left(ring, (crc32(_key(picker, call)), -1))
    for step in range(21):
        server = ring[(start + step) % len(ring)][1]
        if server in fit:
            return server
    return picker.turn(fit)


@cache
def ring_of(weights: tuple[int, ...]) -> list[tuple[int, int]]:
    """Each server's points on the ring of a consistent hash, 160 per weight."""
    ring: dict[int, int] = {}
    for number, weight in enumerate(weights):
        point = bytes(4)
        for _ in range(160 * weight):
            value = crc32(server_name(number).encode() + b"\0" + point)
            ring.setdefault(value, number)
            point = value.to_bytes(4, "little")
    return sorted(ring.items())


METHODS = {
    method.__name__.removeprefix("_"): method
    for method in (
        _round_robin,
        _least_conn,
        _least_time,
        _random,
        _random_two,
        _ip_hash,
        _hash,
        _hash_consistent,
    )
}
