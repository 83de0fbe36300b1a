"""The probability of each overlapping pick under a hypothesis, from the access log alone."""

import numpy as np

from ...evidence.access_log import Hit
from ...nginxconf.model import Upstream
from ...oracle import Arrival, predict
from ...oracle.base import group_of
from .. import replay
from ..case import Case, column_of
from ..chance.bounds import Array, Bounds
from ..replay import picks
from ..replay.windows import Windows
from ..rules.draws import always_drawn, bounds_of_draw, missing_pair_probability
from ..rules.loads import unclear

LAGS = 0.05  # the share of picks at which a worker's clock may lag by more than the slack


def likelihoods(upstream: Upstream, case: Case, number: int | None = None) -> Bounds:
    """The bounds of the first answered requests in the order of their beginnings.

    Picks that the log does not decide are 0 to 1: those near failures, those of a sticky client,
    and those with loads that the log's milliseconds do not distinguish.
    """
    hits = case.answered[: overlapped(case, number)]
    return by_hits(upstream, case, hits).first(number)


def overlapped(case: Case, number: int | None) -> int | None:
    """How many of the first hits may have been picked before the last of the first `number`.

    Without them its server would seem to have fewer requests in flight than it had.
    """
    if number is None or number >= len(case.answered):
        return None
    windows = case.exact_windows
    latest = windows.pick_to[:number].max(initial=-np.inf)
    return max(number, int(np.flatnonzero(windows.pick_from <= latest).max(initial=-1)) + 1)


def by_hits(upstream: Upstream, case: Case, hits: list[Hit]) -> Bounds:
    """The bounds of the picks of the first answered hits."""
    columns = column_of(case)
    seen = np.array([columns[hit.upstream_addr[-1]] for hit in hits], dtype=int)
    low, high = np.zeros((len(hits), len(columns) + 1)), np.ones((len(hits), len(columns) + 1))
    bounds = Bounds(seen, low, high)
    if not hits or upstream.sticky:
        return bounds
    group = group_of(upstream, case.addresses)
    if len(group.live) == 1 and not group.backup and not case.disturbed:
        return always(columns[group.live[0].name], bounds)
    if upstream.record.by_request and not case.disturbed:
        return by_key(upstream, case, hits, bounds)
    if upstream.record.by_draw_alone and not case.disturbed:
        return bounds_of_draw(upstream, case, seen) if always_drawn(upstream, case) else bounds
    if unclear(case) or len(columns) < len(case.upstream.servers):
        return bounds
    # a hypothesis may have the servers in another order
    position = np.array([columns[server.name] for server in upstream.servers])
    index = np.argsort(position)
    for rows in states(upstream, hits):
        part = [hits[row] for row in rows]
        windows = case.exact_windows.part(rows, index[seen[rows]])
        part_low, part_high = by_time(upstream, case, part, windows)
        low[np.ix_(rows, position)], high[np.ix_(rows, position)] = part_low, part_high
        high[rows, -1] = 1 - part_high.any(axis=1)
    return Bounds(seen, low, high, LAGS)


def always(column: int, bounds: Bounds) -> Bounds:
    """The bounds if every pick goes to the same server."""
    odds = np.zeros_like(bounds.low)
    odds[:, column] = 1.0
    return Bounds(bounds.seen, odds, odds)


def states(upstream: Upstream, hits: list[Hit]) -> list[Array]:
    """The rows of each state that nginx keeps: one with a zone, else one per worker."""
    if upstream.zone:
        return [np.arange(len(hits))]
    workers = np.array([hit.pid for hit in hits])
    return [np.flatnonzero(workers == worker) for worker in np.unique(workers)]


def by_key(upstream: Upstream, case: Case, hits: list[Hit], bounds: Bounds) -> Bounds:
    """The bounds by key: exact for each request that has a key."""
    arrivals = [replay.arrival(upstream, hit, lasting=False) for hit in hits]
    low, high = bounds.low, bounds.high
    columns = column_of(case)
    for row, pick in enumerate(predict(upstream, arrivals, case.addresses)):
        if arrivals[row].key or not upstream.record.key:
            high[row] = 0.0
            column = columns.get(pick.server or "", len(columns))
            low[row, column] = high[row, column] = 1.0
    return Bounds(bounds.seen, low, high)


def by_time(upstream: Upstream, case: Case, hits: list[Hit], seen: Windows) -> tuple[Array, Array]:
    """The bounds of turns and loads, by the times of the log; one column for each server line."""
    low = np.zeros((len(hits), len(upstream.servers)))
    high = np.ones_like(low)
    if upstream.record.by_turns:
        low, high = by_turn(upstream, case, seen)
    elif upstream.record.by_draw and upstream.record.by_load:
        if len(group_of(upstream, {}).live) > 1:
            on = picks.basis(upstream, hits, seen, unanswered=case.unanswered)
            draws = picks.random_two(upstream, on)
            low, high = draws.low, np.minimum(draws.high, 1.0)
            high = np.maximum(high, missing_pair_probability(upstream, {}))
            low[~draws.on.undisturbed], high[~draws.on.undisturbed] = 0.0, 1.0
        return low, high
    elif upstream.record.by_load:
        low, high = by_load(upstream, case, hits, seen)
    return low, high


def by_turn(upstream: Upstream, case: Case, seen: Windows) -> tuple[Array, Array]:
    """The servers whose turn it may have been at each pick; unknown near failures."""
    shape = len(seen.server), len(upstream.servers)
    if case.disturbed:
        return np.zeros(shape), np.ones(shape)
    before = np.searchsorted(np.sort(seen.pick_to), seen.pick_from, "left")
    until = np.searchsorted(np.sort(seen.pick_from), seen.pick_to, "right")
    arrivals = (Arrival() for _ in range(shape[0] + 1))
    due = [pick.server for pick in predict(upstream, arrivals)]
    high = np.zeros(shape)
    for number, server in enumerate(upstream.servers):
        turns = np.concatenate([[0], np.cumsum([name == server.name for name in due])])
        high[:, number] = turns[np.minimum(until, len(due))] > turns[before]
    return high * (high.sum(axis=1, keepdims=True) == 1), high


def by_load(upstream: Upstream, case: Case, hits: list[Hit], seen: Windows) -> tuple[Array, Array]:
    """The servers that may have had the least load per weight at each pick; ties take turns."""
    on = picks.basis(upstream, hits, seen, unanswered=case.unanswered)
    load = picks.loads_of(upstream, on)
    weights = np.array([server.weight for server in upstream.servers])
    least = np.where(on.possible, load[0] / weights, np.inf)
    most = np.where(on.certain, load[1] / weights, np.inf)
    best = most.min(axis=1, keepdims=True)
    high = (on.possible & (least <= best)).astype(float)
    low = high * (high.sum(axis=1, keepdims=True) == 1) * on.certain
    clear = on.undisturbed
    if any(server.backup for server in upstream.servers):
        clear = clear & on.certain.any(axis=1)  # else a backup may have been picked
    low[~clear], high[~clear] = 0.0, 1.0
    return low, high
