"""Smooth weighted round robin, nginx's default and what other methods fall back to."""

from .base import Arrival, Group, Peer, Pick, Request, bound, eligible_of, to_backups, turn


def get(request: Request) -> Peer | None:
    """The server whose turn it is, of the backups where no other is eligible.

    A lone server is taken whatever happened to it, unless it is down or full. A server that
    sticky asks for is charged for the turn instead of the winner, up to one round of debt.
    """
    if request.group.single:
        peer = request.group.peers[0]
        full = peer.max_conns and peer.conns >= peer.max_conns
        return None if full or (peer.out and not bound(request)) else peer
    wanted = bound(request)
    if wanted and wanted.current <= wanted.weight - request.group.total_weight:
        return wanted
    best = turn(eligible_of(request.group.peers, request), wanted)
    if best is None and to_backups(request):
        return get(request)
    return best


def peek(request: Request) -> Peer | None:
    """The server that get would return, without taking the turn."""
    group = request.group
    turns = [(peer, peer.current, peer.effective) for peer in group.everyone]
    peer = get(request)
    for it, current, effective in turns:
        it.current, it.effective = current, effective
    request.group = group
    return peer


class RoundRobin:
    """The default method; needs nothing but the turns in the peers."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def get(self, request: Request) -> Peer | None:
        """The server whose turn it is."""
        return get(request)

    def quick(self, _arrival: Arrival) -> Pick | None:
        """The server whose turn it is while all is well."""
        best = turn(self.group.live)
        return best.alone if best else None
