"""Whether picks by load were right, within the accuracy of the log's clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...evidence.access_log import Hit
from ...nginxconf.model import Upstream
from ...oracle.base import Group, group_of
from ...oracle.random_two import pair_odds
from .. import replay
from .windows import Array, Windows, estimates, open_requests


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of picks, of certainly right and certainly wrong ones, and the first wrong one."""

    picks: int
    right: int
    wrong: int
    first: int | None = None

    @property
    def decided(self) -> int:
        """Picks that could be decided either way."""
        return self.right + self.wrong


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """The basis for judging the picks of a log: their windows and the eligible servers.

    `judged` are the picks of requests since the start of the window; `undisturbed` those of them
    that are far from any failure; `possible` and `certain` say per pick and server whether it may
    have been, or certainly was, eligible.
    """

    seen: Windows
    load: tuple[Array, Array]
    judged: Array
    undisturbed: Array
    possible: Array
    certain: Array


def basis(
    upstream: Upstream,
    hits: Sequence[Hit],
    seen: Windows,
    since: float = -math.inf,
    unanswered: Sequence[Hit] = (),
) -> Basis:
    """The basis for hits that a server answered, by their widened windows.

    Requests that began before `since`, in seconds, only count as load. The servers on which
    `unanswered` requests failed may be banned like any other that failed.
    """
    load = open_requests(seen, len(upstream.servers))
    full = np.array([server.max_conns or np.inf for server in upstream.servers])
    fit = np.array(
        [not (server.down or server.drain or server.backup) for server in upstream.servers]
    )
    judged = seen.start >= since * 1000
    return Basis(
        seen,
        load,
        judged,
        judged
        & undisturbed(upstream, hits, seen, unanswered)
        & ~draws_may_repeat(upstream, load, full),
        fit & (load[0] < full),
        fit & (load[1] < full),
    )


def draws_may_repeat(upstream: Upstream, load: tuple[Array, Array], full: Array) -> Array:
    """Picks of random_two while a server may have been at max_conns, so that draws repeat."""
    if not upstream.record.by_draw:
        return np.zeros(len(load[0]), dtype=bool)
    return np.asarray((load[1] >= full).any(axis=1))


def undisturbed(
    upstream: Upstream, hits: Sequence[Hit], seen: Windows, unanswered: Sequence[Hit]
) -> Array:
    """Picks that no failure can have affected: not within a ban plus a second for the clock."""
    ban = max(server.fail_timeout for server in upstream.servers) + 2
    calm = np.ones(len(seen.server), dtype=bool)
    failures = [hits[number] for number in np.flatnonzero(seen.failed).tolist()]
    for hit in (*failures, *unanswered):
        failed = any(replay.fault(upstream, hit, i) for i in range(len(hit.upstream_addr)))
        if failed or len(hit.upstream_addr) > 1:
            begin, end = replay.start(hit) * 1000, (hit.msec + ban) * 1000
            calm &= (seen.pick_to < begin) | (seen.pick_from > end)
    return calm


def least_of(upstream: Upstream, on: Basis, values: tuple[Array, Array]) -> Tally:
    """Count the picks with the smallest value per weight: requests in flight or estimated time."""
    weights = np.array([server.weight for server in upstream.servers])
    low, high = values[0] / weights, values[1] / weights
    rows = np.arange(len(on.seen.server))
    mine = rows, on.seen.server
    others_low = np.where(on.possible, low, np.inf)
    others_high = np.where(on.certain, high, np.inf)
    others_low[mine] = others_high[mine] = np.inf
    allowed = high[mine] <= others_low.min(axis=1)
    wrong = low[mine] > others_high.min(axis=1)
    return tally(on, allowed & on.possible[mine], wrong | ineligible_picks(upstream, on))


def ineligible_picks(upstream: Upstream, on: Basis) -> Array:
    """Picks of a server that was down, or of a backup while a primary was certainly eligible."""
    out = np.array([server.down or server.drain for server in upstream.servers])
    backup = np.array([server.backup for server in upstream.servers])
    chosen: Array = out[on.seen.server] | (backup[on.seen.server] & on.certain.any(axis=1))
    return chosen


def tally(on: Basis, right: Array, wrong: Array) -> Tally:
    """Count the decided picks among the undisturbed ones."""
    wrong = wrong & on.undisturbed
    right = right & on.undisturbed & ~wrong
    first = np.flatnonzero(wrong)
    return Tally(
        int(on.judged.sum()),
        int(right.sum()),
        int(wrong.sum()),
        int(first[0]) if len(first) else None,
    )


def least_loaded(upstream: Upstream, on: Basis) -> Tally:
    """Count the picks of a server with the least load, as the method computes it."""
    return least_of(upstream, on, loads_of(upstream, on))


def loads_of(upstream: Upstream, on: Basis) -> tuple[Array, Array]:
    """The bounds of each server's load at each pick: estimated time or requests in flight."""
    return estimates(upstream, on.seen, on.load) if upstream.record.by_time else on.load


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """The lowest and highest probability per pick and server, given the requests in flight.

    `best` is the probability that a server is drawn at all, which is that of the least loaded one.
    """

    on: Basis
    low: Array
    high: Array
    best: Array


def random_two(upstream: Upstream, on: Basis) -> Draws:
    """Bounds of the probabilities of two draws at each pick, from the bounds of the load."""
    group: Group = group_of(upstream, {})
    number = {peer: index for index, peer in enumerate(group.peers)}
    weights = [server.weight for server in upstream.servers]
    low, high, best = np.zeros_like(on.load[0]), np.zeros_like(on.load[1]), np.zeros(len(weights))
    for (first, second), chance in pair_odds(group, group.live).items():
        i, j = number[first], number[second]
        stays = on.load[0][:, j] * weights[i] > on.load[1][:, i] * weights[j]
        may_stay = on.load[1][:, j] * weights[i] > on.load[0][:, i] * weights[j]
        low[:, i] += chance * stays
        high[:, i] += chance * may_stay
        low[:, j] += chance * ~may_stay
        high[:, j] += chance * ~stays
        best[[i, j]] += chance
    return Draws(on, low, high, np.where(best > 0, best, np.inf))


def draws_tally(drawn: Draws) -> Tally:
    """Count the picks with known probabilities, or with a server that two draws cannot yield.

    Such a server has more open requests per weight than any other; to pick it is wrong.
    """
    mine = np.arange(len(drawn.low)), drawn.on.seen.server
    known = np.asarray((drawn.high - drawn.low < 1e-9).all(axis=1))
    hopeless = np.asarray(drawn.high < 1e-12)
    excluded = np.asarray((hopeless & drawn.on.possible).any(axis=1))
    return tally(drawn.on, known | excluded, hopeless[mine])
