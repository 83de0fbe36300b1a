"""Fewest requests in flight per weight; ties by round robin."""

from . import ranking, round_robin
from .base import (
    Arrival,
    Group,
    Peer,
    Pick,
    Request,
    bound,
    eligible_of,
    least,
    offer,
    to_backups,
    turn,
)
from .ranking import Pool, Ranking


class LeastConn:
    """Pick by requests in flight per weight; ties by smooth weighted round robin.

    Without `candidates` the picks do not list the tied servers.
    """

    def __init__(self, group: Group, *, candidates: bool = True) -> None:
        self.group = group
        self.candidates = candidates
        self.idle = self.tied_when_idle()
        names = dict.fromkeys(peer.name for peer in self.idle)
        equals: dict[str, float | None] = {**names} if candidates and len(names) > 1 else {}
        self.picks = {peer: Pick(peer.name, (peer.name,), equals) for peer in self.idle}
        self.keep_ranking()

    def tied_when_idle(self) -> list[Peer]:
        """The peers that tie while no request is in flight."""
        return self.group.live

    def keep_ranking(self) -> None:
        """Keep a large group in the order of its load."""
        ranking.keep(self.group, load=lambda peer, _now: peer.conns)

    def get(self, request: Request) -> Peer | None:
        """The least loaded server; without a tie no turn is taken and no weight restored."""
        if request.group.single:
            return round_robin.get(request)
        if bound_peer := bound(request):
            return bound_peer
        ranked = request.group.ranking
        peer = self._ranked(request, ranked) if ranked else self._scanned(request)
        return self.get(request) if peer is None and to_backups(request) else peer

    def quick(self, _arrival: Arrival) -> Pick | None:
        """With no requests in flight all peers tie: plain round robin."""
        best = self.idle_turn()
        return self.picks[best] if best else None

    def idle_turn(self) -> Peer | None:
        """One turn of round robin while no request is in flight."""
        ranked = self.group.ranking
        return ranked.turn(ranked.tied(0), 0) if ranked else turn(self.idle)

    def _scanned(self, request: Request) -> Peer | None:
        tied = least({peer: peer.conns for peer in eligible_of(request.group.peers, request)})
        self._offer(request, tied)
        return turn(tied) if len(tied) > 1 else next(iter(tied), None)

    def _ranked(self, request: Request, ranked: Ranking) -> Peer | None:
        with ranked.without(request):
            pools = ranked.tied(request.now)
            if self.candidates:
                self._offer(request, ranked.members(pools))
            if sum(pool.size for pool in pools) == 1:
                return pools[0].first()
            return self.turn_of_pools(pools, ranked, request.now)

    def turn_of_pools(self, pools: list[Pool], ranked: Ranking, now: int) -> Peer | None:
        """One turn of round robin among the members of pools."""
        return ranked.turn(pools, now)

    def _offer(self, request: Request, tied: list[Peer]) -> None:
        if self.candidates:
            offer(request, dict.fromkeys(peer.name for peer in tied))
