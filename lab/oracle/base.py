"""Shared by all methods: the request, the peers and their state, one turn of round robin.

Peers, groups and eligibility follow nginx's ngx_http_upstream_round_robin.c: integers only, the
clock in whole seconds where nginx compares it, in milliseconds where it measures.
"""

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..errors import LabError
from ..nginxconf.model import Server, Upstream
from ..nginxconf.request import printable

if TYPE_CHECKING:
    from .ranking import Pool, Ranking

LONG_AGO = -(10**9)  # nginx's time 0, before any second at which an Arrival's clock may start
MISSES = 20  # at the next miss nginx falls back from a hash or a draw to round robin


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """One request to an upstream.

    `key` is the value of the hash key; `sticky` the value of the first non-empty sticky lookup
    variable; `t` the second at which nginx picks; `duration` how long the chosen server is busy
    with it (seconds, None: done before the next arrival); `fail` says how a server answers if
    this request tries it: refused, connect_timeout, error, timeout, invalid_header, or http_500
    and the like. `took` is how long such a failed attempt lasts, in seconds, by server.
    `header` is the time to the response header in seconds (None: as long as `duration`), for
    least_time; `learnt` the value of the first non-empty `create` variable of `sticky learn`.
    `faults` says how the first attempts end, and after how many seconds, at any server; it takes
    precedence over `fail`.
    """

    key: bytes = b""
    client_ip: str = "127.0.0.1"
    sticky: str = ""
    method: str = "GET"
    t: float = 0.0
    duration: float | None = None
    fail: Mapping[str, str] = msgspec.field(default_factory=dict)
    took: Mapping[str, float] = msgspec.field(default_factory=dict)
    header: float | None = None
    learnt: str = ""
    faults: tuple[tuple[str, float], ...] = ()

    def fate(self, attempt: int, server: str) -> tuple[str, float]:
        """How an attempt, counted from 0, fails at a server, and after how many seconds."""
        if attempt < len(self.faults):
            return self.faults[attempt]
        return self.fail.get(server, ""), self.took.get(server, 0.0)


@dataclass(frozen=True, slots=True)
class Pick:
    """The server that answers (None: no live upstreams), and every server tried, in order.

    If every attempt failed, `server` is the last one tried. `candidates` is empty if the pick is
    certain; else it has each server that nginx may pick on the first attempt, with its probability
    (None if unknown).
    """

    server: str | None
    attempts: tuple[str, ...]
    candidates: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Peer:
    """One address of a `server` line, and the state that nginx keeps of it.

    `out` is down or draining; `checked` and `accessed` are whole seconds; `alone` is the Pick of a
    request that this peer serves on the first attempt; `order` its place in its group. `score` is
    nginx's current_weight; if a Ranking keeps the group, without the peer's share in its pool.
    """

    server: Server
    sid: str
    name: str = field(init=False)
    weight: int = field(init=False)
    max_fails: int = field(init=False)
    fail_timeout: int = field(init=False)
    max_conns: int = field(init=False)
    out: bool = field(init=False)
    alone: Pick = field(init=False)
    order: int = 0
    score: int = 0
    pool: "Pool | None" = None
    effective: int = field(init=False)
    conns: int = 0
    fails: int = 0
    accessed: int = LONG_AGO
    checked: int = LONG_AGO

    def __post_init__(self) -> None:
        server = self.server
        self.name, self.weight, self.effective = server.name, server.weight, server.weight
        self.max_fails, self.fail_timeout = server.max_fails, server.fail_timeout
        self.max_conns = server.max_conns
        self.out = server.down or server.drain
        self.alone = Pick(server.name, (server.name,))

    @property
    def current(self) -> int:
        """The current_weight of nginx."""
        return self.score + (self.pool.credited if self.pool else 0)

    @property
    def pristine(self) -> bool:
        """Whether the peer's state is that of a fresh start, so that its past affects no pick."""
        return not self.fails and not self.conns and self.effective == self.weight


@dataclass(slots=True, eq=False)
class Group:
    """The primary servers, or the backups, in config order; down ones keep their slots.

    `single` means one primary peer without backups; `ends` are the cumulative weights; `ranking`
    keeps a large group in the order that its method needs.
    """

    peers: tuple[Peer, ...]
    backup: "Group | None" = None
    ranking: "Ranking | None" = None
    single: bool = field(init=False)
    live: list[Peer] = field(init=False)
    ends: list[int] = field(init=False)
    total_weight: int = field(init=False)
    by_name: dict[str, list[Peer]] = field(init=False)
    by_sid: dict[str, Peer] = field(init=False)

    def __post_init__(self) -> None:
        self.single = False
        self.live = [peer for peer in self.peers if not peer.out]
        self.ends = list(accumulate(peer.weight for peer in self.peers))
        self.total_weight = self.ends[-1]
        self.by_name, self.by_sid = {}, {}
        for order, peer in enumerate(self.peers):
            peer.order = order
            self.by_name.setdefault(peer.name, []).append(peer)
            self.by_sid.setdefault(peer.sid, peer)

    @property
    def everyone(self) -> tuple[Peer, ...]:
        """The peers of this group and of its backups."""
        return self.peers + (self.backup.peers if self.backup else ())


@dataclass(slots=True, eq=False)
class Request:
    """A request while nginx looks for its server; times in milliseconds.

    `tried` is nginx's bitmap, `tries` the number of attempts left. `misses`, `chain` and `round`
    are the state of a hash, from which a retry continues; `hint` is the id that sticky selects.
    """

    arrival: Arrival
    group: Group
    tries: int
    now: int
    start: int
    tried: set[Peer] = field(default_factory=set)
    attempts: list[str] = field(default_factory=list)
    candidates: Mapping[str, float | None] = field(default_factory=dict)
    misses: int = 0
    chain: int | None = None
    round: int = 0
    hint: str = ""
    pick: Pick | None = None


def milliseconds(seconds: float) -> int:
    """A time as in nginx: in milliseconds, rounded down."""
    return int(seconds * 1000 + 0.001)


class Method(Protocol):
    """One balancing method over one group of servers."""

    def get(self, request: Request) -> Peer | None:
        """The next server for a request, None for "no live upstreams"; takes a turn."""

    def quick(self, arrival: Arrival) -> Pick | None:
        """The pick while every peer is pristine; None if only `get` can decide."""


def peers_of(server: Server, addresses: Mapping[str, tuple[str, ...]]) -> list[Peer]:
    """One peer per address of a server; a name that is not in `addresses` is its own address."""
    return [
        Peer(server, sid(server, address)) for address in addresses.get(server.name, (server.name,))
    ]


def sid(server: Server, address: str) -> str:
    """The id of a server for `sticky`: its route, or the MD5 of its printable address."""
    if server.route:
        return server.route
    return hashlib.md5(printed(address).encode(), usedforsecurity=False).hexdigest()


def printed(address: str) -> str:
    """The address of a `server` line as $upstream_addr shows it; a name stays as it is."""
    if address.lower().startswith("unix:"):
        return address
    match = re.search(r":([0-9]+)\Z", address)
    host, port = (address[: match.start()], int(match[1])) if match else (address, 80)
    if host.startswith("["):
        host = f"[{printable(ipaddress.IPv6Address(host[1:-1]))}]"
    return f"{host}:{port}"


def group_of(upstream: Upstream, addresses: Mapping[str, tuple[str, ...]]) -> Group:
    """The primary group of an upstream, with its backup group if there is one."""
    primary, backup = (
        tuple(
            peer
            for server in upstream.servers
            if server.backup is side
            for peer in peers_of(server, addresses)
        )
        for side in (False, True)
    )
    if not primary:
        where = f" in {upstream.where}" if upstream.file else ""
        raise LabError(
            f'no servers in upstream "{upstream.name}"{where}', "add a server that is not a backup"
        )
    group = Group(primary, Group(backup) if backup else None)
    group.single = len(primary) == 1 and not backup
    return group


def usable(peer: Peer, now: int) -> bool:
    """Whether a peer is neither banned nor at max_conns at `now` (milliseconds)."""
    if 0 < peer.max_fails <= peer.fails and now // 1000 - peer.checked <= peer.fail_timeout:
        return False
    return not peer.max_conns or peer.conns < peer.max_conns


def eligible(peer: Peer, request: Request) -> bool:
    """Whether a request may go to a peer: not down, tried, banned or at max_conns."""
    return not peer.out and peer not in request.tried and usable(peer, request.now)


def eligible_of(peers: Iterable[Peer], request: Request) -> list[Peer]:
    """The peers that a request may go to, in their order."""
    return [peer for peer in peers if eligible(peer, request)]


def bound(request: Request) -> Peer | None:
    """The peer of the current group that sticky selects, if it is eligible.

    A draining server still gets the requests that are bound to it, even if it is also marked down.
    """
    peer = request.group.by_sid.get(request.hint) if request.hint else None
    if peer is None or peer in request.tried or (peer.out and not peer.server.drain):
        return None
    return peer if usable(peer, request.now) else None


def credit(peer: Peer) -> int:
    """Add the effective weight to the score and restore it by one. Return the weight added."""
    weight = peer.effective
    peer.score += weight
    if weight < peer.weight:
        peer.effective = weight + 1
    return weight


def turn(peers: Iterable[Peer], charged: Peer | None = None) -> Peer | None:
    """One turn of smooth weighted round robin over peers: the highest score, the first on a tie.

    The winner's score is reduced by the sum of the weights; with `charged`, that peer's instead.
    """
    best: Peer | None = None
    highest = total = 0
    for peer in peers:
        weight = peer.effective
        total += weight
        peer.score = score = peer.score + weight
        if weight < peer.weight:
            peer.effective = weight + 1
        if best is None or score > highest:
            best, highest = peer, score
    best = charged or best
    if best is not None:
        best.score -= total
    return best


def least(loads: Mapping[Peer, int]) -> list[Peer]:
    """The peers with the smallest load per weight, compared exactly, in their order."""
    tied: list[Peer] = []
    for peer, load in loads.items():
        if tied:
            mine, best = load * tied[0].weight, loads[tied[0]] * peer.weight
            if mine > best:
                continue
            if mine < best:
                tied = []
        tied.append(peer)
    return tied


def offer(request: Request, candidates: Mapping[str, float | None]) -> None:
    """Record which servers nginx may pick on the first attempt, if there are several."""
    if not request.attempts and len(candidates) > 1:
        request.candidates = candidates


def to_backups(request: Request) -> bool:
    """Move a request to the backup group; false if there is none."""
    if request.group.backup is None:
        return False
    request.group = request.group.backup
    return True


def record_check(peer: Peer, second: int) -> None:
    """Record when a peer was picked, unless a time was recorded within its fail_timeout."""
    if second - peer.checked > peer.fail_timeout:
        peer.checked = second


def record_pick(peer: Peer, request: Request) -> None:
    """Update a picked peer; one whose ban has expired is banned again until it succeeds."""
    if not request.group.single:
        record_check(peer, request.now // 1000)
    peer.conns += 1
    request.tried.add(peer)
    request.attempts.append(peer.name)
    if request.group.ranking:
        request.group.ranking.update(peer, request.now)


def record_release(peer: Peer, request: Request, *, failed: bool) -> None:
    """Update a peer whose attempt ends at `request.now`.

    A single server is never banned and never retried.
    """
    peer.conns -= 1
    if request.group.single:
        peer.fails = request.tries = 0
        return
    request.tries = max(0, request.tries - 1)
    if failed:
        record_failure(peer, request.now // 1000)
    elif peer.accessed < peer.checked:
        peer.fails = 0
    if request.group.ranking:
        request.group.ranking.update(peer, request.now)


def record_failure(peer: Peer, second: int) -> None:
    """Update a peer that failed: count the failure and lower its effective weight."""
    peer.fails += 1
    peer.accessed = peer.checked = second
    if peer.max_fails:
        peer.effective = max(0, peer.effective - peer.weight // peer.max_fails)
