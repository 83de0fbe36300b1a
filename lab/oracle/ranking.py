"""Keep the servers of a large group in the order of their load, for picks in logarithmic time.

The scans of base.py visit every server for every request, as nginx does. A Ranking makes the same
picks, because a turn of round robin adds the same weight to all servers of that weight, which
leaves their order as it is, and because a server's load changes only when one of its requests
begins or ends, or at a second that is known in advance.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import lcm

from .base import Group, Peer, Request, usable

LARGE = 24  # peers; a scan is faster for fewer
EVERYBODY = nullcontext()

Load = Callable[[Peer, int], int]  # of a peer at a time in milliseconds


@dataclass(slots=True, eq=False)
class Pool:
    """Peers of one weight and one load; one addition credits all of them with a turn.

    `credited` is the sum of these additions, which the members' `score` lacks. `heap` holds
    (-score, order) of each member; an entry with an outdated score is ignored. A peer whose
    effective weight is being restored has a separate pool, its `recovering`.
    """

    key: tuple[int, int, int]
    level: int
    peers: Sequence[Peer]
    weight: int
    recovering: Peer | None = None
    credited: int = 0
    size: int = 0
    heap: list[tuple[int, int]] = field(default_factory=list)

    def join(self, peer: Peer) -> None:
        """Add a peer that is in no pool."""
        peer.pool = self
        peer.score -= self.credited
        self.size += 1
        self.push(peer)

    def leave(self, peer: Peer) -> None:
        """Remove a member; its entry in the heap stays until it comes to the front."""
        peer.pool = None
        peer.score += self.credited
        self.size -= 1

    def push(self, peer: Peer) -> None:
        """Enter a member's new score."""
        heappush(self.heap, (-peer.score, peer.order))
        if len(self.heap) > 2 * self.size + 16:
            self.heap = list({entry for entry in self.heap if self._holds(entry)})
            heapify(self.heap)

    def first(self) -> Peer:
        """The member with the highest score, the first in config order on a tie."""
        while not self._holds(self.heap[0]):
            heappop(self.heap)
        return self.peers[self.heap[0][1]]

    def members(self) -> list[Peer]:
        """All members, in config order."""
        orders = {entry[1] for entry in self.heap if self._holds(entry)}
        return [self.peers[order] for order in sorted(orders)]

    def credit(self) -> int:
        """Add the weight of every member to its score; return the sum of these weights."""
        if self.recovering is None:
            self.credited += self.weight
            return self.weight * self.size
        weight = self.recovering.effective
        self.credited += weight
        self.recovering.effective = min(weight + 1, self.weight)
        return weight

    def _holds(self, entry: tuple[int, int]) -> bool:
        peer = self.peers[entry[1]]
        return peer.pool is self and peer.score == -entry[0]


def never(_peer: Peer, _now: int) -> int:
    """`changes` for a load that does not change with the clock."""
    return 0


def keep(group: Group, load: Load, changes: Load = never) -> None:
    """Make a Ranking for a group of many peers, and for its backups if they are many."""
    if len(group.peers) >= LARGE:
        group.ranking = Ranking(group, load, changes)
    if group.backup:
        keep(group.backup, load, changes)


def drop(group: Group) -> None:
    """Make a group and its backups use scans again; call this before setting the state of peers."""
    for peer in group.everyone:
        if peer.pool:
            peer.pool.leave(peer)
    for members in (group, group.backup):
        if members:
            members.ranking = None


class Ranking:
    """The peers that can take a request, in pools by their load per weight.

    `load` returns a peer's load, `changes` the second at which its load changes by itself (0:
    never). Call `update` for a peer whenever anything about it has changed.
    """

    def __init__(self, group: Group, load: Load, changes: Load) -> None:
        self.peers = group.peers
        self.load = load
        self.changes = changes
        # loads per weight are compared exactly, as whole multiples of 1/scale
        self.scale = lcm(*(peer.weight for peer in group.peers))
        self.pools: dict[tuple[int, int, int], Pool] = {}
        self.levels: dict[int, list[Pool]] = {}
        self.lowest: list[int] = []
        self.entered: set[int] = set()
        self.alarms: list[tuple[int, int]] = []
        self.due = dict.fromkeys(self.peers, 0)
        for peer in self.peers:
            self.update(peer, 0)

    def update(self, peer: Peer, now: int) -> None:
        """Move a peer to the pool where it belongs at `now` (milliseconds), or to none."""
        if peer.out:
            return
        if not usable(peer, now):
            self.remove(peer)
            self._wake(peer, peer.checked + peer.fail_timeout + 1, now)
            return
        load = self.load(peer, now)
        self._wake(peer, self.changes(peer, now), now)
        key = load, peer.weight, -1 if peer.effective == peer.weight else peer.order
        pool = self.pools.get(key)
        if pool is not None and pool is peer.pool:
            return
        self.remove(peer)
        (self._pool(key) if pool is None else pool).join(peer)

    def remove(self, peer: Peer) -> None:
        """Take a peer out of its pool, and the pool out of the ranking with its last member."""
        pool = peer.pool
        if pool is None:
            return
        pool.leave(peer)
        if pool.size:
            return
        del self.pools[pool.key]
        level = self.levels[pool.level]
        level.remove(pool)
        if not level:
            del self.levels[pool.level]

    def tied(self, now: int) -> list[Pool]:
        """The pools with the least load per weight; none if no peer can take a request."""
        while self.alarms and self.alarms[0][0] <= now // 1000:
            second, order = heappop(self.alarms)
            peer = self.peers[order]
            if self.due[peer] == second:
                self.due[peer] = 0
                self.update(peer, now)
        while self.lowest and self.lowest[0] not in self.levels:
            self.entered.remove(heappop(self.lowest))
        return self.levels[self.lowest[0]] if self.lowest else []

    def turn(self, pools: Sequence[Pool], now: int, charged: Peer | None = None) -> Peer | None:
        """One turn of smooth weighted round robin over the members of pools, as base.turn."""
        best: Peer | None = None
        total = 0
        for pool in pools:
            total += pool.credit()
            front = pool.first()
            if best is None or (front.current, -front.order) > (best.current, -best.order):
                best = front
        winner = charged or best
        if winner is not None:
            winner.score -= total
            if winner.pool:
                winner.pool.push(winner)
        for peer in [pool.recovering for pool in pools if pool.recovering]:
            self.update(peer, now)
        return winner

    def members(self, pools: Sequence[Pool]) -> list[Peer]:
        """The members of several pools, in config order."""
        return sorted(
            (peer for pool in pools for peer in pool.members()), key=lambda member: member.order
        )

    def without(self, request: Request) -> AbstractContextManager[None]:
        """A context in which the peers that a request has tried are left out."""
        return self._left_out(request) if request.tried else EVERYBODY

    @contextmanager
    def _left_out(self, request: Request) -> Iterator[None]:
        # a request that went on to the backups has tried peers of another group
        tried = [peer for peer in request.tried if peer.pool and peer in self.due]
        for peer in tried:
            self.remove(peer)
        yield
        for peer in tried:
            self.update(peer, request.now)

    def _pool(self, key: tuple[int, int, int]) -> Pool:
        load, weight, order = key
        level = load * self.scale // weight
        pool = Pool(key, level, self.peers, weight, self.peers[order] if order >= 0 else None)
        self.pools[key] = pool
        self.levels.setdefault(level, []).append(pool)
        if level not in self.entered:
            self.entered.add(level)
            heappush(self.lowest, level)
        return pool

    def _wake(self, peer: Peer, second: int, now: int) -> None:
        """Update a peer again at a later second."""
        if second > now // 1000 and second != self.due[peer]:
            self.due[peer] = second
            heappush(self.alarms, (second, peer.order))
