"""The alternative configurations that nginx may run instead of the claim."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ...nginxconf.methods import METHODS
from ...nginxconf.model import Server, Upstream
from ...oracle import ORACLES
from ..replay import PATH

NO_STICKY = "no sticky"
KEYS = ("$request_uri", PATH, "$remote_addr", "$binary_remote_addr")  # those that every log has
MOST_PAIRS = 45  # pairs of servers whose weights are swapped: those of 10 servers


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One configuration that nginx may run; `kind` names the group in which it is reported."""

    kind: str
    name: str
    upstream: Upstream


def alternatives(claim: Upstream, workers: int = 1) -> tuple[Hypothesis, ...]:
    """Every alternative to a claim, in the order in which a verdict names them.

    `workers` is how many of nginx's workers the log shows.
    """
    return (
        *_other_methods(claim),
        *_other_weights(claim),
        *_other_limits(claim),
        *_other_live(claim),
        *_other_keys(claim),
        *_other_orders(claim),
        *_other_zone(claim, workers),
    )


def compound(claim: Upstream, workers: int) -> Iterator[Hypothesis]:
    """Further alternatives, only to explain a FAIL: two differences at once, other limits."""
    yield from _other_hashes(claim)
    if any(server.max_conns for server in claim.servers):
        higher = _limited(claim, lambda limit: limit + 1)
        yield Hypothesis("a higher max_conns", "max_conns one higher", higher)
        yield from _lower_limits(claim)
    if workers < 2 or not claim.zone:
        return
    for other in _other_methods(claim):
        if not other.upstream.record.stateless:
            name = f"{other.name} without zone, {workers} workers"
            yield Hypothesis(other.kind, name, replace(other.upstream, zone=False))


def _other_methods(claim: Upstream) -> Iterator[Hypothesis]:
    if claim.sticky:
        yield Hypothesis(NO_STICKY, NO_STICKY, replace(claim, sticky=None))
    for method in ORACLES:
        if method == claim.method:
            continue
        key = (claim.key or "$request_uri") if METHODS[method].key else ""
        other = replace(
            claim, method=method, key=key, measure=claim.measure or "header", sticky=claim.sticky
        )
        yield Hypothesis(method, method, other)
    if claim.record.by_time:
        measure = "last_byte" if "header" in claim.measure else "header"
        other = replace(claim, measure=measure)
        yield Hypothesis("another measure", f"{claim.method} {measure}", other)


def _other_weights(claim: Upstream) -> Iterator[Hypothesis]:
    servers = claim.servers
    weights = [server.weight for server in servers]
    if len(servers) < 2:
        return
    if len(set(weights)) > 1:
        equal = replace(claim, servers=tuple(replace(server, weight=1) for server in servers))
        yield Hypothesis("weights ignored", "weights ignored", equal)
    pairs = [(a, b) for a, b in combinations(range(len(servers)), 2) if weights[a] != weights[b]]
    for a, b in pairs[:MOST_PAIRS]:
        swapped = [*weights]
        swapped[a], swapped[b] = swapped[b], swapped[a]
        name = f"weights of {servers[a].name} and {servers[b].name} swapped"
        yield Hypothesis("weights swapped", name, _weighted(claim, swapped))
    for number, server in enumerate(servers):
        for weight in (server.weight + 1, server.weight - 1):
            if weight > 0 and not server.down:
                off = [*weights[:number], weight, *weights[number + 1 :]]
                name = f"weight {weight} instead of {server.weight} at {server.name}"
                yield Hypothesis("weights off by one", name, _weighted(claim, off))


def _weighted(claim: Upstream, weights: Sequence[int]) -> Upstream:
    pairs = zip(claim.servers, weights, strict=True)
    return replace(claim, servers=tuple(replace(server, weight=weight) for server, weight in pairs))


def _other_limits(claim: Upstream) -> Iterator[Hypothesis]:
    if any(server.max_conns for server in claim.servers):
        free = _limited(claim, lambda _: 0)
        yield Hypothesis("max_conns ignored", "max_conns ignored", free)
    if claim.record.by_draw:  # a lower limit makes no draw impossible, so nothing else shows it
        yield from _lower_limits(claim)


def _lower_limits(claim: Upstream) -> Iterator[Hypothesis]:
    if any(server.max_conns > 1 for server in claim.servers):
        lower = _limited(claim, lambda limit: max(1, limit - 1))
        yield Hypothesis("a lower max_conns", "max_conns one lower", lower)


def _limited(claim: Upstream, limit: Callable[[int], int]) -> Upstream:
    """The claim with another max_conns for each server that has one."""
    servers = tuple(
        replace(server, max_conns=limit(server.max_conns)) if server.max_conns else server
        for server in claim.servers
    )
    return replace(claim, servers=servers)


def _other_live(claim: Upstream) -> Iterator[Hypothesis]:
    """One of several live servers marked down, as an operator does before maintenance."""
    live = [server for server in claim.servers if not (server.down or server.drain)]
    for server in live if len(live) > 1 else ():
        servers = tuple(
            replace(other, down=other.down or other is server) for other in claim.servers
        )
        if not server.backup:
            yield Hypothesis(
                "a server down", f"{server.name} down", replace(claim, servers=servers)
            )


def _other_keys(claim: Upstream) -> Iterator[Hypothesis]:
    same = {claim.key, PATH if claim.key in ("$uri", "$document_uri") else ""}
    for key in KEYS if claim.record.key else ():
        if key not in same:
            other = replace(claim, key=key)
            yield Hypothesis("another key", f"{claim.method} of {key}", other)


def _other_hashes(claim: Upstream) -> Iterator[Hypothesis]:
    """Another method that hashes, and another key than the one of `_other_methods`."""
    for method in ORACLES:
        if not METHODS[method].key or method == claim.method:
            continue
        for other in _other_keys(replace(claim, method=method, key=claim.key or "$request_uri")):
            yield replace(other, kind=method)


def _other_orders(claim: Upstream) -> Iterator[Hypothesis]:
    """The servers in reverse, and with neighbours swapped; draws do not depend on the order."""
    servers = () if claim.record.by_draw else claim.servers
    orders: list[tuple[Server, ...]] = [servers[::-1]] if len(servers) > 2 else []
    for number in range(len(servers) - 1):
        pair = servers[number + 1], servers[number]
        orders.append((*servers[:number], *pair, *servers[number + 2 :]))
    for order in orders:
        name = f"servers in the order {', '.join(server.name for server in order)}"
        yield Hypothesis("another order", name, replace(claim, servers=order))


def _other_zone(claim: Upstream, workers: int) -> Iterator[Hypothesis]:
    if claim.zone and workers > 1:
        name = f"{claim.method} without zone, {workers} workers"
        yield Hypothesis("no zone", name, replace(claim, zone=False))
    elif workers > 1:
        yield Hypothesis("a shared zone", "a shared zone", replace(claim, zone=True))
