"""Two draws by weight, the less loaded wins; on a tie the second."""

from bisect import bisect

from . import round_robin
from .base import MISSES, Group, Peer, Request, eligible, eligible_of
from .random import Draw, Odds, Random, with_fallback


def pair_odds(group: Group, fit: list[Peer]) -> dict[tuple[Peer, Peer], float]:
    """How likely the first draw is the first and the second the second of two fit peers.

    Every draw but the last costs one of 20 tries, the one that finds the first peer included.
    """
    total = group.total_weight
    missed = 1 - sum(peer.weight for peer in fit) / total
    pairs: dict[tuple[Peer, Peer], float] = {}
    for first in fit:
        stuck = missed + first.weight / total
        tails = sum(
            missed ** (draw - 1) * sum(stuck**n for n in range(MISSES + 1 - draw))
            for draw in range(1, MISSES + 1)
        )
        for second in fit:
            if second is not first:
                pairs[first, second] = first.weight * second.weight / total**2 * tails
    return pairs


def winner(first: Peer, second: Peer) -> Peer:
    """The second, unless it has more open requests per weight."""
    return first if second.conns * first.weight > first.conns * second.weight else second


class RandomTwo(Random):
    """Two draws; the odds follow from what every server has open."""

    def __init__(self, group: Group, draw: Draw | None = None) -> None:
        super().__init__(group, draw)
        self.pairs: dict[tuple[Peer, ...], dict[tuple[Peer, Peer], float]] = {}

    def odds(self, request: Request) -> Odds:
        """Every server that may come out for a request, with its probability."""
        fit = tuple(eligible_of(request.group.peers, request))
        if fit not in self.pairs:
            if len(self.pairs) > 256:
                self.pairs.clear()
            self.pairs[fit] = pair_odds(request.group, list(fit))
        odds = dict.fromkeys(fit, 0.0)
        for (first, second), chance in self.pairs[fit].items():
            odds[winner(first, second)] += chance
        return with_fallback(odds, request)

    def drawn(self, request: Request, draw: Draw) -> Peer | None:
        """The server that these draws lead to; the 21st draw without a pair is round robin's."""
        group, first = request.group, None
        for _ in range(MISSES + 1):
            peer = group.peers[bisect(group.ends, draw(group.total_weight))]
            if not eligible(peer, request) or peer is first:
                continue
            if first is not None:
                return winner(first, peer)
            first = peer
        return round_robin.get(request)
