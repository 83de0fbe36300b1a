"""Pick by the CRC32 of a key, as Cache::Memcached; changing the servers moves most keys."""

from bisect import bisect_right
from zlib import crc32

from . import round_robin
from .base import MISSES, Arrival, Group, Peer, Pick, Request, bound, eligible


def step(chain: int, turn: int, key: bytes) -> int:
    """Add the hash of a key's nth round to its chain; the first round has no prefix."""
    prefix = b"%d" % turn if turn else b""
    return chain + (crc32(prefix + key) >> 16 & 0x7FFF)


class Hash:
    """Picks by a chain of sums from the key; each sum falls into one server's share of weights."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def get(self, request: Request) -> Peer | None:
        """The server of the chain's next sum; for an empty key, that of round robin."""
        group, key = request.group, request.arrival.key
        if request.misses > MISSES or len(group.peers) < 2 or not key:
            return round_robin.get(request)
        if bound_peer := bound(request):
            return bound_peer
        while request.misses <= MISSES:
            request.chain = step(request.chain or 0, request.round, key)
            request.round += 1
            peer = group.peers[bisect_right(group.ends, request.chain % group.total_weight)]
            if eligible(peer, request):
                return peer
            request.misses += 1
        return round_robin.get(request)

    def quick(self, arrival: Arrival) -> Pick | None:
        """The server of the first sum, unless it is down."""
        group, key = self.group, arrival.key
        if len(group.peers) < 2 or not key:
            return round_robin.quick(self.group)
        peer = group.peers[bisect_right(group.ends, step(0, 0, key) % group.total_weight)]
        return None if peer.out else peer.alone
