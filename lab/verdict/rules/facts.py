"""Hard facts: picks that are impossible under every method.

The log must prove the fact. Without a trace, times of the log are accurate to PROOF seconds.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ...evidence.access_log import Hit
from ...nginxconf.model import Server
from ...oracle import retry
from .. import replay
from ..case import Case, shortened
from ..replay.windows import open_requests

PROOF = 0.05  # seconds by which a time of the log may lag behind nginx's picks and releases


@dataclass(frozen=True, slots=True)
class Fact:
    """One request that nginx must not have sent to its server: its number from 0, and why."""

    number: int
    why: str

    def text(self, case: Case) -> str:
        """The fact as text of a verdict."""
        hit = case.hits[self.number]
        name = f" (id {hit.request_id})" if hit.request_id else ""
        return f"request {self.number + 1:,}{name} {self.why}"


def first_fact(case: Case) -> Fact | None:
    """The first request that breaks a rule of all methods; None if there is none."""
    checks: tuple[Callable[[Case], Iterator[Fact]], ...] = (
        to_down,
        forbidden_retries,
        over_limit,
        while_banned,
        unneeded_backups,
    )
    facts = [fact for check in checks if (fact := next(check(case), None))]
    return min(facts, key=lambda fact: fact.number, default=None)


def to_down(case: Case) -> Iterator[Fact]:
    """Requests to a server that is down; a draining server still gets its sticky clients."""
    bound = case.upstream.sticky is not None
    out = {
        server.name: "down" if server.down else "draining"
        for server in case.upstream.servers
        if (server.down and not (server.drain and bound)) or (server.drain and not bound)
    }
    out = {name: word for name, word in out.items() if all_out(case, name)}
    for number, hit in enumerate(case.hits) if out else ():
        for name in hit.upstream_addr:
            if name in out:
                yield Fact(number, f"went to {short(case, name)}, which is {out[name]}")


def all_out(case: Case, name: str) -> bool:
    """Whether every line of a server is down or draining."""
    return all(
        server.down or server.drain for server in case.upstream.servers if server.name == name
    )


def forbidden_retries(case: Case) -> Iterator[Fact]:
    """Retries that proxy_next_upstream does not allow."""
    rules = case.upstream.next_upstream
    for number, hit in enumerate(case.hits):
        attempts = replay.seen(case.upstream, hit).attempts
        if len(attempts) < 2:
            continue
        if rules.tries and len(attempts) > rules.tries + broken(case, hit):
            yield Fact(number, f"was tried {len(attempts)} times, {rules.tries} are allowed")
        for index, server in enumerate(attempts[:-1]):
            if reason := forbidden(case, hit, index):
                yield Fact(number, f"was repeated after {reason} at {short(case, server)}")
        if unique(case) and len(case.upstream.servers) > 1 and len(set(attempts)) < len(attempts):
            again = next(name for name in attempts if attempts.count(name) > 1)
            yield Fact(number, f"was sent to {short(case, again)} twice")


def broken(case: Case, hit: Hit) -> int:
    """Attempts that may have failed on a kept-alive connection, which nginx does not count."""
    return sum(
        replay.fault(case.upstream, hit, index) in ("error", "invalid_header")
        or replay.reset_at_once(hit, index)
        for index in range(len(hit.upstream_addr))
    )


def forbidden(case: Case, hit: Hit, index: int) -> str:
    """Why nginx must not retry after an attempt; empty if it may."""
    rules = case.upstream.next_upstream
    kind = replay.fault(case.upstream, hit, index)
    if not kind:
        status = replay.value_at(hit.upstream_status, index)
        return f"an answer ({status}) that proxy_next_upstream does not list"
    reason = retry.TRANSPORT.get(kind, kind)
    if reason not in rules.conditions and kind not in ("error", "invalid_header"):
        return f'"{reason}", which proxy_next_upstream does not list'
    if not rules.conditions & {"error", "invalid_header"} and kind in ("error", "invalid_header"):
        return f'"{reason}", which proxy_next_upstream does not list'
    again = hit.request_method not in retry.ONCE or "non_idempotent" in rules.conditions
    return "" if again or kind in retry.UNSENT else f"a {hit.request_method} had been sent"


def over_limit(case: Case) -> Iterator[Fact]:
    """Requests to a server that certainly had max_conns requests, by one worker's state."""
    limits = {server.name: server.max_conns for server in case.upstream.servers}
    if not any(limits.values()) or not unique(case) or case.sequential:
        return
    numbers = [n for n, hit in enumerate(case.hits) if len(hit.upstream_addr) == 1]
    numbers = [n for n in numbers if case.hits[n].upstream_addr[0] in limits]
    groups: dict[int, list[int]] = defaultdict(list)
    for number in numbers:
        groups[0 if case.upstream.zone else case.hits[number].pid].append(number)
    order = [server.name for server in case.upstream.servers]
    for group in groups.values():
        hits = [case.hits[number] for number in group]
        load = open_requests(case.windows(hits, PROOF * 1000), len(order))[0]
        full = np.array([limits[name] or np.inf for name in order])
        mine = np.array([order.index(hit.upstream_addr[0]) for hit in hits])
        for row in np.flatnonzero(load[np.arange(len(hits)), mine] >= full[mine]):
            name = order[mine[row]]
            why = f"went to {short(case, name)}, which had max_conns={limits[name]} requests open"
            yield Fact(group[row], why)


@dataclass(frozen=True, slots=True)
class Stretches:
    """Time spans by their starts, and the latest end of those begun so far; in seconds."""

    starts: Sequence[float]
    ends: Sequence[float]

    def last_end(self, moment: float) -> float:
        """The latest end of the spans that began by a moment; far in the past if none did."""
        begun = bisect_right(self.starts, moment)
        return self.ends[begun - 1] if begun else -math.inf


def stretches(spans: Iterable[tuple[float, float]]) -> Stretches:
    """Spans of time, sorted by their starts."""
    ordered = sorted(spans)
    return Stretches(
        [start for start, _ in ordered], list(accumulate((end for _, end in ordered), max))
    )


def while_banned(case: Case) -> Iterator[Fact]:
    """Requests to a server that had failed max_fails times and was certainly still banned."""
    servers = {server.name: server for server in case.upstream.servers}
    if len(servers) < 2 or not unique(case) or not case.disturbed:
        return
    bans = {name: stretches(certain_bans(case, server)) for name, server in servers.items()}
    for number, hit in enumerate(case.hits):
        name, begun = hit.upstream_addr[0], replay.start(hit)
        if name in bans and bans[name].last_end(begun - PROOF) > begun + PROOF:
            yield Fact(number, f"went to {short(case, name)}, which was banned after failing")


def certain_bans(case: Case, server: Server) -> Iterator[tuple[float, float]]:
    """When a server was certainly banned: after each failure, if max_fails is 1 with a zone."""
    if server.max_fails != 1 or server.fail_timeout < 2 or not case.upstream.zone:
        return
    for hit in case.hits:
        ended = replay.start(hit)
        for index, name in enumerate(replay.seen(case.upstream, hit).attempts):
            ended += replay.value_at(hit.upstream_response_time, index) or 0.0
            kind = replay.fault(case.upstream, hit, index)
            last = index == len(hit.upstream_addr) - 1
            blamed = kind in retry.TRANSPORT or (kind and not last and kind not in retry.HARMLESS)
            if name == server.name and blamed:
                yield max(ended, hit.msec), ended + server.fail_timeout - 1


def unneeded_backups(case: Case) -> Iterator[Fact]:
    """Requests to a backup while a primary server was certainly eligible."""
    backups = {server.name for server in case.upstream.servers if server.backup}
    primaries = [
        server
        for server in case.upstream.servers
        if not (server.backup or server.down or server.drain)
    ]
    backups -= {server.name for server in primaries}
    if not backups or not primaries or not case.fresh:
        return
    troubles = {server.name: stretches(maybe_ineligible(case, server)) for server in primaries}
    for number, hit in enumerate(case.hits):
        for index, name in enumerate(hit.upstream_addr):
            if name in backups:
                tried = set(hit.upstream_addr[:index])
                free = [
                    server.name
                    for server in primaries
                    if server.name not in tried
                    and troubles[server.name].last_end(hit.msec + PROOF) < replay.start(hit)
                ]
                if free:
                    why = f"went to {short(case, name)}, a backup, while {short(case, free[0])}"
                    yield Fact(number, f"{why} was eligible")


def maybe_ineligible(case: Case, server: Server) -> Iterator[tuple[float, float]]:
    """When a server may have been banned or at max_conns."""
    for hit in case.hits if server.max_conns or case.disturbed else ():
        for index, name in enumerate(replay.seen(case.upstream, hit).attempts):
            if name == server.name and replay.fault(case.upstream, hit, index):
                yield replay.start(hit) - PROOF, hit.msec + server.fail_timeout + 2
            elif name == server.name and server.max_conns:
                yield replay.start(hit) - PROOF, hit.msec + PROOF


def unique(case: Case) -> bool:
    """Whether a name in the log belongs to one server with one address."""
    names = [server.name for server in case.upstream.servers]
    addressed = all(len(addresses) < 2 for addresses in case.addresses.values())
    return len(set(names)) == len(names) and addressed


def short(case: Case, name: str) -> str:
    """A server's name as in a split."""
    return shortened(case.upstream).get(name, name)
