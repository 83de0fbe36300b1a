"""Lowest estimated time: average time, in steps of 20 ms, times requests in flight."""

from collections.abc import Mapping
from dataclasses import dataclass

from . import ranking, round_robin
from .base import (
    Arrival,
    Group,
    Peer,
    Pick,
    Request,
    credit,
    eligible_of,
    least,
    milliseconds,
    record_check,
)
from .least_conn import LeastConn
from .ranking import Pool, Ranking

LONGEST, STEP = 5000, 20  # milliseconds


def averaged(average: int, sample: int) -> int:
    """The moving average after a sample: 5 % new, 95 % old; the first sample counts in full."""
    return int(0.5 + (sample * 0.05 + average * 0.95)) if average else sample


def clustered(time: int) -> int:
    """A time rounded up to the next multiple of 20 ms (20 becomes 40), at most 5,000."""
    return LONGEST if time > LONGEST else time + STEP - time % STEP


def halved(time: int, peer: Peer, now: int) -> int:
    """A time, halved for every fail_timeout + 1 s that the peer was not checked."""
    idle = now // 1000 - peer.checked
    return time >> idle // (peer.fail_timeout + 1) if idle > peer.fail_timeout else time


@dataclass(slots=True)
class Times:
    """The times that nginx measured at a peer, in ms; `running` requests count for `inflight`."""

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
        """Remove a running request that took `took` ms."""
        if self.running == 1:
            self.spent = 0
        else:
            self.spent += (now - self.changed) * self.running - took
            self.changed = now
        self.running -= 1

    def look(self, now: int) -> None:
        """Update the age of the running requests, as nginx does at every pick."""
        if self.running:
            age = self.spent // self.running + now - self.changed
            self.inflight = averaged(self.inflight, age)


class LeastTime(LeastConn):
    """Pick by average time and requests in flight; ties by smooth weighted round robin.

    `measure` is header or last_byte, followed by " inflight" where running requests count.
    Without `candidates` the picks do not list the tied servers.
    """

    def __init__(self, group: Group, measure: str, *, candidates: bool = True) -> None:
        words = measure.split()
        self.by_header = "last_byte" not in words
        self.inflight = "inflight" in words
        self.times = {peer: Times() for peer in group.everyone}
        self.running: set[Request] = set()
        self.measured = False
        super().__init__(group, candidates=candidates)

    def tied_when_idle(self) -> list[Peer]:
        """The heaviest peers, which have the least time per weight."""
        heaviest = max((peer.weight for peer in self.group.live), default=0)
        return [peer for peer in self.group.live if peer.weight == heaviest]

    def keep_ranking(self) -> None:
        """Keep a large group in the order of its estimates."""
        # with inflight nginx updates the age of running requests of every peer at each pick
        if not self.inflight:
            ranking.keep(self.group, self.eta, self.changes)

    def eta(self, peer: Peer, now: int) -> int:
        """The estimated time in ms until a peer would be done with one more request."""
        times = self.times[peer]
        times.look(now)
        time = halved(self.average(peer), peer, now)
        if times.running:
            time = max(time, times.inflight)
        return clustered(time) * (1 + peer.conns)

    def average(self, peer: Peer) -> int:
        """The moving average used for a peer, in ms."""
        return self.times[peer].header if self.by_header else self.times[peer].response

    def changes(self, peer: Peer, now: int) -> int:
        """The second at which a peer's average is halved again, 0 where that changes nothing."""
        if not halved(self.average(peer), peer, now):
            return 0
        period = peer.fail_timeout + 1
        return peer.checked + ((now // 1000 - peer.checked) // period + 1) * period

    def quick(self, arrival: Arrival) -> Pick | None:
        """Before a time is measured the heaviest servers tie: plain round robin among them."""
        if self.group.single:
            return round_robin.quick(self.group)
        best = None if self.measured else self.idle_turn()
        if best is None:
            return None
        record_check(best, milliseconds(arrival.t) // 1000)
        return self.picks[best]

    def idle_turn(self) -> Peer | None:
        """One turn among the heaviest peers; a single one takes none, and no weight is restored."""
        return self.idle[0] if len(self.idle) == 1 else super().idle_turn()

    def _scanned(self, request: Request) -> Peer | None:
        etas = {
            peer: self.eta(peer, request.now) for peer in eligible_of(request.group.peers, request)
        }
        tied = least(etas)
        self._offer(request, tied)
        return turn_of_equals(tied, etas) if len(tied) > 1 else next(iter(tied), None)

    def turn_of_pools(self, pools: list[Pool], ranked: Ranking, now: int) -> Peer | None:
        """One turn among the members of pools, as nginx compares peers of different weights."""
        if len({pool.weight for pool in pools}) <= 1:
            return ranked.turn(pools, now)
        tied = ranked.members(pools)
        for peer in tied:
            ranked.remove(peer)
        best = turn_of_equals(tied, {peer: self.eta(peer, now) for peer in tied})
        for peer in tied:
            ranked.update(peer, now)
        return best

    def begun(self, request: Request, peer: Peer) -> None:
        """Record that a request was sent to a peer."""
        if self.inflight and not request.group.single:
            self.times[peer].begin(request.now)
            self.running.add(request)

    def answered(self, request: Request, peer: Peer, header: int) -> None:
        """Record that a response header took `header` ms; only `header inflight` uses this."""
        if self.by_header and self.inflight:
            self.times[peer].header = averaged(self.times[peer].header, header)
            self.measured = True
            self._finish(request, peer, header)

    def ended(self, request: Request, peer: Peer, header: int | None, response: int) -> None:
        """Record that an attempt ended after `response` ms; `header` is None where it failed."""
        self._finish(request, peer, response)
        if header is None:
            return
        self.measured = self.measured or bool(response or header)
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

    nginx compares every peer with the first one's estimate but the latest winner's weight, so a
    winner with another weight excludes tied peers after it.
    """
    best, level, total = tied[0], etas[tied[0]], 0
    for peer in tied:
        if etas[peer] * best.weight == level * peer.weight:
            total += credit(peer)
            if peer.current > best.current:
                best = peer
    best.score -= total
    return best
