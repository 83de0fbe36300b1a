"""The least estimated time decides: average time, in steps of 20 ms, times open requests."""

from collections.abc import Mapping
from dataclasses import dataclass

from . import round_robin
from .base import (
    Arrival,
    Group,
    Peer,
    Pick,
    Request,
    bound,
    credit,
    eligible_of,
    least,
    offer,
    to_backups,
)

LONGEST, STEP = 5000, 20  # milliseconds


def averaged(average: int, sample: int) -> int:
    """The moving average with one more sample: 5 % new, 95 % old; the first is taken as it is."""
    return int(0.5 + (sample * 0.05 + average * 0.95)) if average else sample


def clustered(time: int) -> int:
    """A time in steps: up to the next multiple of 20 ms (20 becomes 40), never above 5,000."""
    return LONGEST if time > LONGEST else time + STEP - time % STEP


def halved(time: int, peer: Peer, now: int) -> int:
    """A time, halved for every fail_timeout + 1 s that the peer was not checked."""
    idle = now // 1000 - peer.checked
    return time >> idle // (peer.fail_timeout + 1) if idle > peer.fail_timeout else time


@dataclass(slots=True)
class Times:
    """What nginx measured at a peer, in ms; `running` requests are those of `inflight`."""

    header: int = 0
    response: int = 0
    running: int = 0
    spent: int = 0
    changed: int = 0
    inflight: int = 0

    def begin(self, now: int) -> None:
        """Count one more running request."""
        self.spent += (now - self.changed) * self.running
        self.changed = now
        self.running += 1

    def finish(self, now: int, took: int) -> None:
        """Forget a running request that lasted `took`."""
        if self.running == 1:
            self.spent = 0
        else:
            self.spent += (now - self.changed) * self.running - took
            self.changed = now
        self.running -= 1

    def look(self, now: int) -> None:
        """Note the age of the running requests, as nginx does at every pick."""
        if self.running:
            age = self.spent // self.running + now - self.changed
            self.inflight = averaged(self.inflight, age)


class LeastTime:
    """Average times and open requests decide, smooth weighted round robin among equals.

    `measure` is header or last_byte, with " inflight" behind it where running requests count.
    """

    def __init__(self, group: Group, measure: str) -> None:
        words = measure.split()
        self.by_header = "last_byte" not in words
        self.inflight = "inflight" in words
        self.times = {peer: Times() for peer in group.everyone}
        self.running: set[Request] = set()

    def eta(self, peer: Peer, now: int) -> int:
        """The estimated time in ms until a peer would be done with one more request."""
        times = self.times[peer]
        times.look(now)
        time = halved(times.header if self.by_header else times.response, peer, now)
        if times.running:
            time = max(time, times.inflight)
        return clustered(time) * (1 + peer.conns)

    def get(self, request: Request) -> Peer | None:
        """The server with the least estimate per weight."""
        if request.group.single:
            return round_robin.get(request)
        if wanted := bound(request):
            return wanted
        etas = {it: self.eta(it, request.now) for it in eligible_of(request.group.peers, request)}
        tied = least(etas)
        if not tied:
            return self.get(request) if to_backups(request) else None
        offer(request, dict.fromkeys(peer.name for peer in tied))
        return turn_of_equals(tied, etas) if len(tied) > 1 else tied[0]

    def quick(self, _arrival: Arrival) -> Pick | None:
        """None: times always matter."""
        return None

    def begun(self, request: Request, peer: Peer) -> None:
        """A request was sent to a peer."""
        if self.inflight and not request.group.single:
            self.times[peer].begin(request.now)
            self.running.add(request)

    def answered(self, request: Request, peer: Peer, header: int) -> None:
        """A peer's response header came after `header` ms; only `header inflight` listens."""
        if self.by_header and self.inflight:
            self.times[peer].header = averaged(self.times[peer].header, header)
            self._finish(request, peer, header)

    def ended(self, request: Request, peer: Peer, header: int | None, response: int) -> None:
        """An attempt ended after `response` ms; `header` is None where it failed."""
        self._finish(request, peer, response)
        if header is None:
            return
        times = self.times[peer]
        times.response = averaged(times.response, response)
        if not (self.by_header and self.inflight):
            times.header = averaged(times.header, header)

    def _finish(self, request: Request, peer: Peer, took: int) -> None:
        if request in self.running:
            self.running.remove(request)
            self.times[peer].finish(request.now, took)


def turn_of_equals(tied: list[Peer], etas: Mapping[Peer, int]) -> Peer:
    """One turn of round robin among equals.

    nginx compares every peer with the first one's estimate but the latest winner's weight, so
    a winner of another weight shuts out equals behind it.
    """
    best, level, total = tied[0], etas[tied[0]], 0
    for peer in tied:
        if etas[peer] * best.weight == level * peer.weight:
            total += credit(peer)
            if peer.current > best.current:
                best = peer
    best.current -= total
    return best
