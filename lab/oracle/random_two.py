"""Two draws by weight, the less loaded wins; on a tie the second."""

from bisect import bisect
from collections.abc import Hashable, Sequence
from functools import cache

from . import round_robin
from .base import MISSES, Group, Peer, Request, eligible
from .random import KEPT, Draw, Odds, Random
from .ranking import LARGE

Pairs = dict[tuple[Peer, Peer], float]


def tails_of(group: Group, fit: Sequence[Peer]) -> list[float]:
    """For each eligible peer drawn first: the weighted number of ways to a second draw.

    Every draw except the last uses one of 20 tries, including the draw of the first peer.
    """
    total = group.total_weight
    missed = 1 - sum(peer.weight for peer in fit) / total

    @cache
    def tails(weight: int) -> float:
        stuck = missed + weight / total
        return sum(
            missed ** (draw - 1) * sum(stuck**n for n in range(MISSES + 1 - draw))
            for draw in range(1, MISSES + 1)
        )

    return [tails(peer.weight) for peer in fit]


def pair_odds(group: Group, fit: Sequence[Peer]) -> Pairs:
    """The probability of each ordered pair of eligible peers as first and second draw."""
    total = group.total_weight
    return {
        (first, second): first.weight * second.weight / total**2 * tails
        for first, tails in zip(fit, tails_of(group, fit), strict=True)
        for second in fit
        if second is not first
    }


def winner_odds(group: Group, fit: Sequence[Peer]) -> Odds:
    """The probability that each eligible peer wins its pair, for many peers at once.

    The sums are in the order of `pair_odds`, so that they round as if computed one by one.
    """
    # numpy takes longer to import than a small prediction does to run
    import numpy as np

    weights = np.array([peer.weight for peer in fit])
    conns = np.array([peer.conns for peer in fit])
    pairs = np.outer(weights, weights) / group.total_weight**2
    pairs *= np.array(tails_of(group, fit))[:, None]
    np.fill_diagonal(pairs, 0.0)
    first_wins = np.outer(weights, conns) > np.outer(conns, weights)
    second = np.where(first_wins, 0.0, pairs)
    first = np.where(first_wins, pairs, 0.0)
    # as in `pair_odds`: drawn second after an earlier peer, first, second after a later peer
    sums = np.vstack([np.triu(second), first.T, np.tril(second)]).sum(axis=0)
    return dict(zip(fit, sums.tolist(), strict=True))


def winner(first: Peer, second: Peer) -> Peer:
    """The second draw, unless it has more requests in flight per weight."""
    return first if second.conns * first.weight > first.conns * second.weight else second


class RandomTwo(Random):
    """Two draws; the probabilities depend on the requests in flight on every server."""

    def __init__(self, group: Group, draw: Draw | None = None) -> None:
        super().__init__(group, draw)
        self.pairs: dict[tuple[Peer, ...], Pairs] = {}

    def state(self, fit: tuple[Peer, ...]) -> Hashable:
        """The probabilities also depend on the load."""
        return fit, tuple(peer.conns for peer in fit)

    def draw_odds(self, group: Group, fit: tuple[Peer, ...]) -> Odds:
        """The probability that each eligible peer wins its pair."""
        if len(fit) >= LARGE:
            return winner_odds(group, fit)
        if fit not in self.pairs:
            if len(self.pairs) >= KEPT:
                self.pairs.clear()
            self.pairs[fit] = pair_odds(group, fit)
        odds = dict.fromkeys(fit, 0.0)
        for (first, second), chance in self.pairs[fit].items():
            odds[winner(first, second)] += chance
        return odds

    def drawn(self, request: Request, draw: Draw) -> Peer | None:
        """The server of these draws; after 21 draws without a pair, that of round robin."""
        group, first = request.group, None
        for _ in range(MISSES + 1):
            peer = group.peers[bisect(group.ends, draw(group.total_weight))]
            if not eligible(peer, request) or peer is first:
                continue
            if first is not None:
                return winner(first, peer)
            first = peer
        return round_robin.get(request)
