"""The event loop of a simulated fleet in plain Python: `lab/oracle` picks, the engine serves.

It is the reference that the compiled loop is held against, and it takes what that one does not: a
profile with jitter.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nginx_llm_lab.backends.llm.blocks import BLOCK_TOKENS
from nginx_llm_lab.backends.llm.engine import PICOSECONDS, Engine, Generation
from nginx_llm_lab.backends.llm.engine import Request as Sequences
from nginx_llm_lab.nginxconf.model import Upstream
from nginx_llm_lab.oracle import Arrival, balancer
from nginx_llm_lab.oracle.base import Peer, Request, record_pick, record_release
from nginx_llm_lab.simulate.jobs import Workload

if TYPE_CHECKING:
    from nginx_llm_lab.backends.llm.profiles import Profile
    from nginx_llm_lab.oracle import Draw


@dataclass(slots=True)
class Outcome:
    """What became of one request; times in picoseconds, -1 where it did not come so far."""

    backend: int = -1
    sent: int = -1
    first: int = -1
    last: int = -1
    cached: int = 0
    queued: float = 0.0  # ms
    tokens: list[int] = field(default_factory=list)


class Splitmix:
    """The compiled loop's random numbers: splitmix64."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def draw(self, below: int) -> int:
        """Return a whole number from 0 up to, not including, `below`."""
        mask = 2**64 - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) >> 2) % below


class Loop:
    """Requests arrive in the order of their times; engines' events come before them on a tie."""

    def __init__(
        self,
        work: Workload,
        profiles: "Sequence[tuple[Profile, float]]",
        upstream: Upstream,
        keys: Callable[[int], Arrival],
        draw: "Draw | None" = None,
    ) -> None:
        self.work = work
        self.engines = [Engine(profile, slow) for profile, slow in profiles]
        self.nginx = balancer(upstream, None, draw)
        self.places = {peer: b for b, peer in enumerate(self.nginx.group.peers)}
        self.keys = keys
        self.outcomes = [Outcome() for _ in range(len(work))]
        self.pending: list[tuple[int, int]] = [
            (int(work.due[first]), int(first)) for first in work.firsts
        ]
        heapq.heapify(self.pending)
        self.open: dict[Generation, tuple[int, Request, Peer]] = {}
        self.bound: dict[int, str] = {}

    def run(self) -> list[Outcome]:
        """Let everything happen."""
        while self.pending or any(engine.next_due() is not None for engine in self.engines):
            event = self._next_event()
            if event and (not self.pending or event[0] <= self.pending[0][0]):
                self._step(event[1])
            else:
                self._arrive(*heapq.heappop(self.pending))
        return self.outcomes

    def _next_event(self) -> tuple[int, int] | None:
        dues = (
            (ticks(due), b)
            for b, engine in enumerate(self.engines)
            if (due := engine.next_due()) is not None
        )
        return min(dues, default=None)

    def _arrive(self, now: int, number: int) -> None:
        arrival, clock = self.keys(number), now * 1000 // PICOSECONDS
        request = Request(arrival, self.nginx.group, self.nginx.budget, clock, clock)
        request.hint = self.bound.get(int(self.work.user[number]), "")
        peer = self.nginx.method.get(request)
        if peer is None:
            return
        record_pick(peer, request)
        if self.nginx.sessions:
            self.bound[int(self.work.user[number])] = peer.sid
        outcome = self.outcomes[number]
        outcome.backend, outcome.sent = self.places[peer], now
        engine = self.engines[outcome.backend]
        generation = engine.submit(now / PICOSECONDS, self._sequence(number))
        self.open[generation] = (number, request, peer)

    def _sequence(self, number: int) -> Sequences:
        work = self.work
        prompt, output = int(work.prompt[number]), int(work.output[number])
        shared = list(self._shared(int(work.node[number])))
        own = range(len(shared), (prompt + output) // BLOCK_TOKENS)
        names = (*shared, *(("own", number, place) for place in own))
        return Sequences(prompt, output, names, tag=number)

    def _shared(self, node: int) -> Iterator[tuple[str, int, int]]:
        if node < 0:
            return
        above = int(self.work.parent[node])
        yield from self._shared(above)
        start = int(self.work.end[above]) if above >= 0 else 0
        for place in range(start, int(self.work.end[node])):
            yield ("node", node, place)

    def _step(self, b: int) -> None:
        step = self.engines[b].step()
        now = ticks(step.at)
        for token in step.tokens():
            number, request, peer = self.open[token.generation]
            outcome = self.outcomes[number]
            outcome.tokens.append(now)
            if token.number == 0:
                outcome.first = now
        ended = [one for one in step.generations if one.ended]
        for generation in ended:
            number, request, peer = self.open.pop(generation)
            self._depart(number, request, peer, generation, now)

    def _depart(
        self, number: int, request: Request, peer: Peer, generation: Generation, now: int
    ) -> None:
        outcome = self.outcomes[number]
        outcome.last, outcome.cached = now, generation.cached_tokens
        assert generation.started is not None
        outcome.queued = (generation.started - generation.arrived) * 1e3
        milli = PICOSECONDS // 1000
        request.now = now // milli
        sent = outcome.sent // milli
        header_at = outcome.first if self.work.stream else now
        if self.nginx.timed:
            took = request.now - sent
            self.nginx.timed.ended(request, peer, header_at // milli - sent, took)
        record_release(peer, request, failed=False)
        following = int(self.work.follows[number]) if len(self.work.follows) else -1
        if following >= 0 and (due := now + int(self.work.due[following])) < self.work.last_due:
            heapq.heappush(self.pending, (due, following))


def ticks(seconds: float) -> int:
    """Seconds as whole picoseconds."""
    return round(seconds * PICOSECONDS)


def arrays(outcomes: Sequence[Outcome]) -> "dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]":
    """Each figure of all requests as an array."""
    names = ("backend", "sent", "first", "last", "cached", "queued")
    return {name: np.array([getattr(one, name) for one in outcomes]) for name in names}
