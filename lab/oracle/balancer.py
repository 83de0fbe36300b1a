"""Simulate one nginx worker's upstream: requests arrive, attempts end, peers are released."""

from collections.abc import Callable
from heapq import heappop, heappush

from ..nginxconf.model import Upstream
from . import retry
from .base import (
    Arrival,
    Group,
    Method,
    Peer,
    Pick,
    Request,
    milliseconds,
    record_pick,
    record_release,
)
from .least_time import LeastTime
from .sticky import Sessions


class Balancer:
    """Picks a server for each arrival; arrivals are in the order of their times.

    Requests and attempts that take time are events on a heap, so that requests overlap as in nginx.
    The clock never goes back: an arrival earlier than the previous one counts as at that time.
    """

    def __init__(self, upstream: Upstream, group: Group, method: Method) -> None:
        self.group = group
        self.method = method
        self.rules = upstream.next_upstream
        self.sessions = Sessions(upstream.sticky) if upstream.sticky else None
        self.timed = method if isinstance(method, LeastTime) else None
        self.budget = retry.budget(group, self.rules)
        self.now = 0
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.number = 0
        self.peers = group.everyone
        self.calm = True

    def quick(self, arrival: Arrival) -> Pick | None:
        """The pick for a request that no other event can affect, by a fast path."""
        if arrival.fail or arrival.faults or arrival.duration is not None:
            return None
        if self.sessions and (self.sessions.learns or arrival.sticky):
            return None
        if not self.calm and not self._is_calm():
            return None
        return self.method.quick(arrival)

    def arrive(self, arrival: Arrival) -> Request:
        """Start a request; its `pick` is set when the attempts that take time have ended."""
        self.advance(milliseconds(arrival.t))
        self.calm = False
        request = Request(arrival, self.group, self.budget, self.now, self.now)
        self._try_servers(request)
        return request

    def advance(self, now: int) -> None:
        """Process every event that is due by `now`, in milliseconds."""
        while self.events and self.events[0][0] <= now:
            self.now, _, event = heappop(self.events)
            event()
        self.now = max(self.now, now)

    def finish(self) -> None:
        """Process every remaining event."""
        while self.events:
            self.advance(self.events[0][0])

    def _is_calm(self) -> bool:
        """Whether no event is pending and every peer is pristine."""
        self.calm = not self.events and all(peer.pristine for peer in self.peers)
        return self.calm

    def _schedule(self, delay: int, event: Callable[[], None]) -> None:
        if not delay:
            event()
            return
        self.number += 1
        heappush(self.events, (self.now + delay, self.number, event))

    def _try_servers(self, request: Request) -> None:
        while self._attempt(request):
            pass

    def _attempt(self, request: Request) -> bool:
        """Send a request to the next server; true if the attempt fails at once."""
        request.now = self.now
        if self.sessions:
            request.hint = self.sessions.hint(request)
        peer = self.method.get(request)
        if peer is None:
            self._close(request, None)
            return False
        record_pick(peer, request)
        if self.timed:
            self.timed.begun(request, peer)
        fail, seconds = request.arrival.fate(len(request.attempts) - 1, peer.name)
        if not fail or retry.passed_on(retry.checked(fail, peer.name), request, self.rules):
            self._answer(request, peer, seconds if fail else request.arrival.duration or 0.0)
            return False
        took = milliseconds(seconds)
        if not took:
            return self._failed(request, peer, fail, 0)
        self._schedule(took, lambda: self._resume(request, peer, fail, took))
        return False

    def _resume(self, request: Request, peer: Peer, fail: str, took: int) -> None:
        if self._failed(request, peer, fail, took):
            self._try_servers(request)

    def _failed(self, request: Request, peer: Peer, fail: str, took: int) -> bool:
        """End a failed attempt; true if nginx tries another server."""
        request.now = self.now
        if self.timed:
            self.timed.ended(request, peer, None, took)
        record_release(peer, request, failed=fail not in retry.HARMLESS)
        if retry.is_retried(fail, request, self.rules):
            return True
        self._close(request, peer.name)
        return False

    def _answer(self, request: Request, peer: Peer, duration: float) -> None:
        """Process a server's response; the request stays in flight for its duration."""
        response, header = milliseconds(duration), milliseconds(duration)
        if request.arrival.header is not None:
            header = min(header, milliseconds(request.arrival.header))
        self._close(request, peer.name)
        if self.timed or (self.sessions and self.sessions.at_header):
            self._schedule(header, lambda: self._header(request, peer, header))
        self._schedule(response, lambda: self._release(request, peer, header, response))

    def _header(self, request: Request, peer: Peer, header: int) -> None:
        request.now = self.now
        if self.timed:
            self.timed.answered(request, peer, header)
        if self.sessions and self.sessions.at_header:
            self.sessions.learn(request, peer)

    def _release(self, request: Request, peer: Peer, header: int, response: int) -> None:
        request.now = self.now
        if self.timed:
            self.timed.ended(request, peer, header, response)
        if self.sessions and not self.sessions.at_header:
            self.sessions.learn(request, peer)
        record_release(peer, request, failed=False)

    def _close(self, request: Request, server: str | None) -> None:
        request.pick = Pick(server, tuple(request.attempts), request.candidates)
