"""A draw by weight decides: a distribution, not a sequence."""

from bisect import bisect
from collections.abc import Callable, Hashable, Mapping, Sequence

from . import round_robin
from .base import MISSES, Arrival, Group, Peer, Pick, Request, bound, eligible, eligible_of, offer

SURE = 1e-12  # what rounding may leave of 1
KEPT = 256  # sets of servers whose odds are cached

Odds = dict[Peer, float]
Offer = tuple[Peer | None, Mapping[str, float | None]]
Draw = Callable[[int], int]  # a whole number from 0 up to, not including, its argument


def odds_of(group: Group, fit: Sequence[Peer]) -> Odds:
    """How likely a draw, redrawn on a miss, ends at each fit peer.

    What is missing to 1 is the chance of 21 misses in a row, which end in round robin.
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
        self.known: dict[Hashable, Offer] = {}
        self.still: Pick | None = None
        self.asked = False

    def odds(self, request: Request) -> Odds:
        """Every server that a request may get, with its probability."""
        fit = tuple(eligible_of(request.group.peers, request))
        return with_fallback(self.draw_odds(request.group, fit), request)

    def draw_odds(self, group: Group, fit: tuple[Peer, ...]) -> Odds:
        """How likely the draws end at each fit peer of a group."""
        return odds_of(group, fit)

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
        """What the odds of these fit peers depend on."""
        return fit

    def get(self, request: Request) -> Peer | None:
        """The most probable server; fewer than two take turns of round robin."""
        if len(request.group.peers) < 2:
            return round_robin.get(request)
        if wanted := bound(request):
            return wanted
        if self.draw:
            return self.drawn(request, self.draw)
        best, candidates = self.offer(request)
        offer(request, candidates)
        return best if best in request.group.peers else round_robin.get(request)

    def drawn(self, request: Request, draw: Draw) -> Peer | None:
        """The server that these draws lead to."""
        return drawn(request, draw)

    def quick(self, _arrival: Arrival) -> Pick | None:
        """The pick while every peer is pristine: every request has the same odds."""
        if self.draw:
            return None
        if not self.asked:
            self.asked, self.still = True, self._idle()
        return self.still

    def _idle(self) -> Pick | None:
        """The pick while every peer is pristine; None where turns may decide."""
        group = self.group
        if len(group.peers) < 2 or not group.live:
            return None
        best, candidates = self.offer(Request(Arrival(), group, 0, 0, 0))
        if best is None or (len(group.live) < len(group.peers) and not self.known):
            return None
        return Pick(best.name, (best.name,), candidates if len(candidates) > 1 else {})
