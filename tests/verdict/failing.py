"""The log of a simulated nginx whose servers fail, one request at a time, by round robin.

It shares no code with the oracle. Servers are numbered from 0; times are seconds after EPOCH.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Upstream

EPOCH = 1_700_000_000


@dataclass(frozen=True, slots=True)
class Truth:
    """What nginx really runs; an outage is a server with the seconds from when till when it fails.

    `bans_at` failures ban a server (0: none do) for `ban` seconds. With `keeps_weight` a failure
    does not lower the weight, with `recovers_at_once` the next pick restores all of it, with
    `never_forgets` a success does not reset the failures, with `always_forgets` any success does.
    """

    weights: Sequence[int]
    outages: Sequence[tuple[int, float, float]]
    max_fails: int = 1
    bans_at: int = 1
    ban: int = 5
    backup: int = -1
    keeps_weight: bool = False
    recovers_at_once: bool = False
    never_forgets: bool = False
    always_forgets: bool = False


@dataclass(slots=True)
class Peer:
    """nginx's state of one server."""

    number: int
    weight: int
    effective: int
    current: int = 0
    fails: int = 0
    accessed: int = 0
    checked: int = 0


@dataclass(slots=True)
class Nginx:
    """The servers of one run."""

    truth: Truth
    peers: list[Peer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.peers = [Peer(n, weight, weight) for n, weight in enumerate(self.truth.weights)]

    def pick(self, now: int, tried: Sequence[int]) -> Peer | None:
        """The next server of a request; a backup only if no other may be used."""
        truth = self.truth
        live = [
            peer
            for peer in self.peers
            if peer.number not in tried
            and not (0 < truth.bans_at <= peer.fails and now - peer.checked <= truth.ban)
        ]
        group = [peer for peer in live if peer.number != truth.backup] or live
        for peer in group:
            peer.current += peer.effective
        if not group:
            return None
        best = max(group, key=lambda peer: (peer.current, -peer.number))
        best.current -= sum(peer.effective for peer in group)
        for peer in group:
            rise = peer.weight if truth.recovers_at_once else 1
            peer.effective = min(peer.weight, peer.effective + rise)
        return best

    def end(self, peer: Peer, now: int, failed: bool) -> None:
        """Count a failure, or forget earlier ones."""
        truth = self.truth
        if now - peer.checked > truth.ban:
            peer.checked = now
        if failed:
            peer.fails += 1
            peer.accessed = peer.checked = now
            if truth.max_fails and not truth.keeps_weight:
                peer.effective = max(0, peer.effective - peer.weight // truth.max_fails)
        elif truth.always_forgets or (peer.accessed < peer.checked and not truth.never_forgets):
            peer.fails = 0


def serve(truth: Truth, number: int = 600, seed: int = 1) -> list[Hit]:
    """The log of requests about five times a second; a server that fails refuses connections."""
    nginx, rng, hits, moment = Nginx(truth), random.Random(seed), [], 400
    for _ in range(number):
        moment += rng.choice((100, 200, 300))
        begun, tried, answered = moment, list[int](), False
        while not answered and (peer := nginx.pick(EPOCH + moment // 1000, tried)):
            tried.append(peer.number)
            answered = not any(
                server == peer.number and first <= moment / 1000 < last
                for server, first, last in truth.outages
            )
            nginx.end(peer, EPOCH + moment // 1000, failed=not answered)
            moment += 3 if answered else 0
        hits.append(logged(tried, answered, begun, moment, len(truth.weights)))
    return hits


def logged(tried: Sequence[int], answered: bool, begun: int, end: int, servers: int) -> Hit:
    """nginx's line; a refused attempt takes no time. Times are ms."""
    names = [f"s{number}:1" for number in tried]
    if not answered and len(tried) < servers:
        names.append("llm")
    good = [answered and name == names[-1] for name in names]
    return Hit(
        tuple(names),
        200 if answered else 502,
        EPOCH + end / 1000,
        (end - begun) / 1000,
        upstream_status=tuple(200 if ok else 502 for ok in good),
        upstream_connect_time=tuple(0.0 if ok else None for ok in good),
        upstream_header_time=tuple(0.003 if ok else None for ok in good),
        upstream_response_time=tuple(0.003 if ok else 0.0 for ok in good),
    )


def claim_of(truth: Truth, *, max_fails: int, fail_timeout: int) -> Upstream:
    """The config with these parameters."""
    servers = (
        Server(
            f"s{number}:1",
            weight,
            max_fails=max_fails,
            fail_timeout=fail_timeout,
            backup=number == truth.backup,
        )
        for number, weight in enumerate(truth.weights)
    )
    return Upstream(tuple(servers), zone=True)
