"""Pick by a draw by weight: a distribution, not a sequence."""

from bisect import bisect
from collections.abc import Callable, Hashable, Mapping, Sequence

from . import round_robin
from .base import MISSES, Arrival, Group, Peer, Pick, Request, bound, eligible, eligible_of, offer

SURE = 1e-12  # the rounding error of 1
KEPT = 256  # sets of servers whose odds are cached

Odds = dict[Peer, float]
Offer = tuple[Peer | None, Mapping[str, float | None]]
Draw = Callable[[int], int]  # a whole number from 0 up to, not including, its argument


def odds_of(group: Group, fit: Sequence[Peer]) -> Odds:
    """The probability that a draw, repeated on a miss, ends at each eligible peer.

    The sum is less than 1 by the probability of 21 misses in a row, which end in round robin.
    """
    missed = 1 - sum(peer.weight for peer in fit) / group.total_weight
    draws = sum(missed**n for n in range(MISSES + 1))
    return {peer: peer.weight / group.total_weight * draws for peer in fit}


def with_fallback(odds: Odds, request: Request) -> Odds:
    """Add the probability of falling back to round robin to the server whose turn it is."""
    rest = 1 - sum(odds.values())
    if rest > SURE and (peer := round_robin.peek(request)):
        odds = {**odds, peer: odds.get(peer, 0.0) + rest}
    return odds


def by_name(odds: Odds) -> dict[str, float | None]:
    """The probabilities of the servers, added up by name."""
    summed: dict[str, float] = {}
    for peer, chance in odds.items():
        if chance:
            summed[peer.name] = summed.get(peer.name, 0.0) + chance
    return {**summed}


def likeliest(odds: Odds) -> Peer:
    """The most probable peer, the first on a tie, in place of nginx's draw."""
    return max(odds, key=odds.__getitem__)


def drawn(request: Request, draw: Draw) -> Peer | None:
    """The peer that nginx picks with these draws; the 21st miss falls back to round robin."""
    group = request.group
    for _ in range(MISSES + 1):
        peer = group.peers[bisect(group.ends, draw(group.total_weight))]
        if eligible(peer, request):
            return peer
    return round_robin.get(request)


class Random:
    """Draws by weight.

    With `draw` the server is drawn as nginx draws it. Without, `get` returns the most probable
    server, and a retry starts a new draw: the number of misses of the first draw is unknown.
    """

    def __init__(self, group: Group, draw: Draw | None = None) -> None:
        self.group = group
        self.draw = draw
        self.known: dict[Hashable, Offer] = {}
        self.drawn_among: dict[tuple[Peer, ...], Odds] = {}
        self.idle_pick: Pick | None = None
        self.idle_pick_is_known = False

    def odds(self, request: Request) -> Odds:
        """Every server that a request may get, with its probability."""
        fit = tuple(eligible_of(request.group.peers, request))
        return with_fallback(self.draw_odds(request.group, fit), request)

    def draw_odds(self, group: Group, fit: tuple[Peer, ...]) -> Odds:
        """The probability that the draws end at each eligible peer of a group."""
        if fit not in self.drawn_among:
            if len(self.drawn_among) >= KEPT:
                self.drawn_among.clear()
            self.drawn_among[fit] = odds_of(group, fit)
        return self.drawn_among[fit]

    def offer(self, request: Request) -> Offer:
        """The most probable server of a request, and every server with its probability."""
        fit = tuple(eligible_of(request.group.peers, request))
        state = self.state(fit)
        if (known := self.known.get(state)) is not None:
            return known
        drawn = self.draw_odds(request.group, fit)
        odds = with_fallback(drawn, request)
        offered = likeliest(odds) if odds else None, by_name(odds)
        if odds is drawn:  # the odds do not depend on whose turn it is
            if len(self.known) >= KEPT:
                self.known.clear()
            self.known[state] = offered
        return offered

    def state(self, fit: tuple[Peer, ...]) -> Hashable:
        """The state on which the probabilities of these eligible peers depend."""
        return fit

    def get(self, request: Request) -> Peer | None:
        """The most probable server; with fewer than two peers, that of round robin."""
        if len(request.group.peers) < 2:
            return round_robin.get(request)
        if bound_peer := bound(request):
            return bound_peer
        if self.draw:
            return self.drawn(request, self.draw)
        best, candidates = self.offer(request)
        offer(request, candidates)
        return best if best in request.group.peers else round_robin.get(request)

    def drawn(self, request: Request, draw: Draw) -> Peer | None:
        """The server that these draws lead to."""
        return drawn(request, draw)

    def quick(self, _arrival: Arrival) -> Pick | None:
        """The pick while every peer is pristine: every request has the same probabilities."""
        if self.draw:
            return None
        if not self.idle_pick_is_known:
            self.idle_pick_is_known, self.idle_pick = True, self._idle()
        return self.idle_pick

    def _idle(self) -> Pick | None:
        """The pick while every peer is pristine; None if round robin may decide."""
        group = self.group
        if len(group.peers) < 2 or not group.live:
            return None
        best, candidates = self.offer(Request(Arrival(), group, 0, 0, 0))
        if best is None or (len(group.live) < len(group.peers) and not self.known):
            return None
        return Pick(best.name, (best.name,), candidates if len(candidates) > 1 else {})
