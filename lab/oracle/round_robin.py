"""Smooth weighted round robin, nginx's default and what other methods fall back to."""

from . import ranking
from .base import Arrival, Group, Peer, Pick, Request, bound, eligible_of, to_backups, turn


def get(request: Request) -> Peer | None:
    """The server whose turn it is; a backup if no primary server is eligible.

    A single server is picked even after failures, unless it is down or at max_conns. A server that
    sticky selects is charged for the turn instead of the winner, up to a debt of one round.
    """
    if request.group.single:
        peer = request.group.peers[0]
        full = peer.max_conns and peer.conns >= peer.max_conns
        return None if full or (peer.out and not bound(request)) else peer
    bound_peer = bound(request)
    if bound_peer and bound_peer.current <= bound_peer.weight - request.group.total_weight:
        return bound_peer
    best = turn_of(request, bound_peer)
    if best is None and to_backups(request):
        return get(request)
    return best


def turn_of(request: Request, charged: Peer | None) -> Peer | None:
    """One turn among the peers of the current group that a request may go to."""
    if ranked := request.group.ranking:
        with ranked.without(request):
            return ranked.turn(ranked.tied(request.now), request.now, charged)
    return turn(eligible_of(request.group.peers, request), charged)


def quick(group: Group) -> Pick | None:
    """The server whose turn it is while every peer is pristine."""
    ranked = group.ranking
    best = ranked.turn(ranked.tied(0), 0) if ranked else turn(group.live)
    return best.alone if best else None


def peek(request: Request) -> Peer | None:
    """The server that get would return, without taking the turn."""
    group = request.group
    turns = [(peer, peer.score, peer.effective) for peer in group.everyone]
    peer = get(request)
    for other, score, effective in turns:
        other.score, other.effective = score, effective
    request.group = group
    return peer


class RoundRobin:
    """The default method: turns among all eligible peers."""

    def __init__(self, group: Group) -> None:
        self.group = group
        ranking.keep(group, load=lambda _peer, _now: 0)

    def get(self, request: Request) -> Peer | None:
        """The server whose turn it is."""
        return get(request)

    def quick(self, _arrival: Arrival) -> Pick | None:
        """The server whose turn it is while every peer is pristine."""
        return quick(self.group)
