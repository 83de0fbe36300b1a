"""Consistent hash on a ring of CRC32 points (ketama): losing a server moves only its keys."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from zlib import crc32

from ..errors import UsageError
from . import round_robin
from .base import MISSES, Arrival, Group, Peer, Pick, Request, bound, eligible_of, turn

POINTS = 160  # per weight
MOST_POINTS = 8_000_000  # of a ring: its dict takes a gigabyte


def base_of(name: str) -> int:
    """The CRC32 that the points of a server start from: its host, a NUL, its port as written.

    The name is the text of the `server` line: `10.0.0.1` and `10.0.0.1:80` differ.
    """
    if name[:5].lower() == "unix:":
        return crc32(name[5:].encode() + b"\0")
    match = re.fullmatch(r"(?s)(.*):([0-9]*)", name)
    host, port = match.groups() if match else (name, "")
    return crc32(host.encode() + b"\0" + port.encode())


def points_of(name: str, number: int) -> list[int]:
    """The points of a server: each hashes the one before it, as four little-endian bytes."""
    base, point, points = base_of(name), 0, []
    for _ in range(number):
        point = crc32(point.to_bytes(4, "little"), base)
        points.append(point)
    return points


def ring_of(peers: Sequence[Peer]) -> dict[int, str]:
    """All points, ascending, with their server's text; of equal points the first declared is kept.

    So servers with the same text share one set of points, that of the heaviest one. UsageError for
    more than MOST_POINTS.
    """
    if (number := POINTS * sum(peer.weight for peer in peers)) > MOST_POINTS:
        raise UsageError(
            f"a consistent hash with these weights has {number:,} points, above {MOST_POINTS:,}",
            f"smaller weights: {MOST_POINTS // POINTS:,} in all",
        )
    ring: dict[int, str] = {}
    for peer in reversed(peers):
        ring.update(dict.fromkeys(points_of(peer.name, POINTS * peer.weight), peer.name))
    return {point: ring[point] for point in sorted(ring)}


class HashConsistent:
    """The first point at or after the key's CRC32 names the server."""

    def __init__(self, group: Group) -> None:
        self.group = group
        ring = ring_of(group.peers)
        self.points = list(ring)
        self.names = list(ring.values())
        live = {
            name: [peer for peer in peers if not peer.out] for name, peers in group.by_name.items()
        }
        self.live = [live[name] for name in self.names]

    def get(self, request: Request) -> Peer | None:
        """The server of the next point with an eligible peer; a point without one is a miss."""
        key = request.arrival.key
        if request.misses > MISSES or request.group.single or not key:
            return round_robin.get(request)
        if request.chain is None:
            request.chain = bisect_left(self.points, crc32(key))
        if bound_peer := bound(request):
            return bound_peer
        while request.misses <= MISSES:
            name = self.names[request.chain % len(self.names)]
            if peer := turn(eligible_of(request.group.by_name.get(name, ()), request)):
                return peer
            request.chain += 1
            request.misses += 1
        return round_robin.get(request)

    def quick(self, arrival: Arrival) -> Pick | None:
        """The server of the first point, unless it is down."""
        if self.group.single or not arrival.key:
            return round_robin.quick(self.group)
        peers = self.live[bisect_left(self.points, crc32(arrival.key)) % len(self.points)]
        if len(peers) == 1:
            return peers[0].alone
        best = turn(peers)
        return best.alone if best else None
