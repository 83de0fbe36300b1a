"""A draw by weight decides: a distribution, not a sequence."""

from bisect import bisect
from collections.abc import Callable

from . import round_robin
from .base import MISSES, Arrival, Group, Peer, Pick, Request, bound, eligible, eligible_of, offer

Odds = dict[Peer, float]
Draw = Callable[[int], int]  # a whole number from 0 up to, not including, its argument


def odds_of(group: Group, fit: list[Peer]) -> Odds:
    """How likely a draw, redrawn on a miss, ends at each fit peer.

    What is missing to 1 is the chance of 21 misses in a row, which end in round robin.
    """
    missed = 1 - sum(peer.weight for peer in fit) / group.total_weight
    draws = sum(missed**n for n in range(MISSES + 1))
    return {peer: peer.weight / group.total_weight * draws for peer in fit}


def with_fallback(odds: Odds, request: Request) -> Odds:
    """Add what ends in round robin to the server whose turn it is."""
    rest = 1 - sum(odds.values())
    if rest > 1e-12 and (peer := round_robin.peek(request)):
        odds = {**odds, peer: odds.get(peer, 0.0) + rest}
    return odds


def by_name(odds: Odds) -> dict[str, float | None]:
    """The probabilities of the servers, those of one name together."""
    summed: dict[str, float] = {}
    for peer, chance in odds.items():
        if chance:
            summed[peer.name] = summed.get(peer.name, 0.0) + chance
    return {**summed}


def likeliest(odds: Odds) -> Peer:
    """The most probable peer, the first on a tie: a stand-in for nginx's draw."""
    return max(odds, key=odds.__getitem__)


def drawn(request: Request, draw: Draw) -> Peer | None:
    """The peer that nginx takes for these draws; the 21st miss leaves the draw for round robin."""
    group = request.group
    for _ in range(MISSES + 1):
        peer = group.peers[bisect(group.ends, draw(group.total_weight))]
        if eligible(peer, request):
            return peer
    return round_robin.get(request)


class Random:
    """Draws by weight.

    With `draw` the server is drawn as nginx draws it. Without, `get` returns the most probable
    server, and a retry draws afresh: how often nginx's first draw missed is not known.
    """

    def __init__(self, group: Group, draw: Draw | None = None) -> None:
        self.group = group
        self.draw = draw
        self.still: Pick | None = None

    def odds(self, request: Request) -> Odds:
        """Every server that may come out for a request, with its probability."""
        fit = eligible_of(request.group.peers, request)
        return with_fallback(odds_of(request.group, fit), request)

    def get(self, request: Request) -> Peer | None:
        """The most probable server; fewer than two take turns of round robin."""
        if len(request.group.peers) < 2:
            return round_robin.get(request)
        if wanted := bound(request):
            return wanted
        if self.draw:
            return self.drawn(request, self.draw)
        odds = self.odds(request)
        offer(request, by_name(odds))
        best = likeliest(odds) if odds else None
        return best if best in request.group.peers else round_robin.get(request)

    def drawn(self, request: Request, draw: Draw) -> Peer | None:
        """The server that these draws lead to."""
        return drawn(request, draw)

    def quick(self, _arrival: Arrival) -> Pick | None:
        """While all is well every request has the same odds."""
        if self.draw:
            return None
        if self.still is None and len(self.group.live) == len(self.group.peers) > 1:
            request = Request(Arrival(), self.group, 0, 0, 0)
            odds = self.odds(request)
            name = likeliest(odds).name
            self.still = Pick(name, (name,), by_name(odds))
        return self.still
