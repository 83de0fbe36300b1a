"""Pick by the client's address: three octets of IPv4, all sixteen of IPv6."""

import socket
from bisect import bisect_right
from functools import lru_cache

from ..errors import UsageError
from . import round_robin
from .base import MISSES, Arrival, Group, Peer, Pick, Request, bound, eligible

SEED, FACTOR, MODULUS = 89, 113, 6271


def octets(client_ip: str) -> bytes:
    """The hashed bytes of a client's address; three zeros for a unix socket."""
    if client_ip.startswith("unix:"):
        return bytes(3)
    family = socket.AF_INET6 if ":" in client_ip else socket.AF_INET
    try:
        packed = socket.inet_pton(family, client_ip)
    except (OSError, ValueError):
        raise UsageError(
            f'client_ip "{client_ip}" is not an IP address', "give an IPv4 or IPv6 address"
        ) from None
    return packed[:3] if family == socket.AF_INET else packed


def step(chain: int, address: bytes) -> int:
    """The next value of a client's chain, which starts at SEED."""
    for octet in address:
        chain = (chain * FACTOR + octet) % MODULUS
    return chain


@lru_cache(maxsize=65536)
def first(address: bytes) -> int:
    """The first value of a client's chain."""
    return step(SEED, address)


class IpHash:
    """Picks by a chain of numbers from the address, each in one server's share of weights."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def get(self, request: Request) -> Peer | None:
        """The server of the chain's next number; a server that is not eligible is a miss."""
        group = request.group
        if request.misses > MISSES or len(group.peers) < 2:
            return round_robin.get(request)
        if bound_peer := bound(request):
            return bound_peer
        address = octets(request.arrival.client_ip)
        chain = SEED if request.chain is None else request.chain
        while request.misses <= MISSES:
            chain = step(chain, address)
            peer = group.peers[bisect_right(group.ends, chain % group.total_weight)]
            if eligible(peer, request):
                request.chain = chain
                return peer
            request.misses += 1
        return round_robin.get(request)

    def quick(self, arrival: Arrival) -> Pick | None:
        """The server of the first number, unless it is down."""
        group = self.group
        if len(group.peers) < 2:
            return round_robin.quick(self.group)
        number = first(octets(arrival.client_ip))
        peer = group.peers[bisect_right(group.ends, number % group.total_weight)]
        return None if peer.out else peer.alone
