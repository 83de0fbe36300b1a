"""The fewest open requests per weight; equals take turns."""

from . import round_robin
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


class LeastConn:
    """Open requests decide, smooth weighted round robin among equals."""

    def __init__(self, group: Group) -> None:
        self.group = group
        names = dict.fromkeys(peer.name for peer in group.live)
        idle: dict[str, float | None] = {**names} if len(names) > 1 else {}
        self.picks = {peer: Pick(peer.name, (peer.name,), idle) for peer in group.live}

    def get(self, request: Request) -> Peer | None:
        """The least loaded server; without a tie no turn is taken, not even weight regained."""
        if request.group.single:
            return round_robin.get(request)
        if wanted := bound(request):
            return wanted
        tied = least({it: it.conns for it in eligible_of(request.group.peers, request)})
        if not tied:
            return self.get(request) if to_backups(request) else None
        offer(request, dict.fromkeys(peer.name for peer in tied))
        return turn(tied) if len(tied) > 1 else tied[0]

    def quick(self, _arrival: Arrival) -> Pick | None:
        """While nobody has an open request all are equal: plain turns."""
        best = turn(self.group.live)
        return self.picks[best] if best else None
