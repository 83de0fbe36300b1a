"""How probable each pick is under a hypothesis where requests overlapped and only the log tells."""

import numpy as np

from ..evidence.access_log import Hit
from ..nginxconf.model import Upstream
from ..oracle import Arrival, predict
from ..oracle.base import group_of
from ..oracle.random import odds_of
from . import picks, replay
from .bounds import Array, Bounds
from .case import Case
from .draws import undrawn
from .loads import unclear
from .windows import Windows, windows

LAGS = 0.05  # the share of picks at which a worker's clock may lag by more than the slack


def likelihoods(upstream: Upstream, case: Case, number: int | None = None) -> Bounds:
    """The bounds of the first answered requests in the order of their beginnings.

    Picks that nothing in the log decides are 0 to 1: all of them around failures, those of a
    sticky client, and loads that the log's milliseconds leave open.
    """
    hits = case.answered[:number]
    columns = {
        name: at for at, name in enumerate(dict.fromkeys(s.name for s in case.upstream.servers))
    }
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
        return by_draw(upstream, case, columns, bounds)
    if unclear(case) or len(columns) < len(case.upstream.servers):
        return bounds
    # a hypothesis may have the servers in another order
    position = np.array([columns[server.name] for server in upstream.servers])
    for rows in states(upstream, hits):
        part = [hits[row] for row in rows]
        part_low, part_high = by_time(upstream, case, part)
        low[np.ix_(rows, position)], high[np.ix_(rows, position)] = part_low, part_high
        high[rows, -1] = 1 - part_high.any(axis=1)
    return Bounds(seen, low, high, LAGS)


def always(column: int, bounds: Bounds) -> Bounds:
    """Every pick goes to the same server."""
    odds = np.zeros_like(bounds.low)
    odds[:, column] = 1.0
    return Bounds(bounds.seen, odds, odds)


def states(upstream: Upstream, hits: list[Hit]) -> list[Array]:
    """The rows of each state that nginx keeps: one in a zone, else one a worker."""
    if upstream.zone:
        return [np.arange(len(hits))]
    workers = np.array([hit.pid for hit in hits])
    return [np.flatnonzero(workers == worker) for worker in np.unique(workers)]


def by_key(upstream: Upstream, case: Case, hits: list[Hit], bounds: Bounds) -> Bounds:
    """Exact wherever a request has a key."""
    arrivals = [replay.arrival(upstream, hit, lasting=False) for hit in hits]
    low, high = bounds.low, bounds.high
    columns = {
        name: at for at, name in enumerate(dict.fromkeys(s.name for s in case.upstream.servers))
    }
    for row, pick in enumerate(predict(upstream, arrivals, case.addresses)):
        if arrivals[row].key or not upstream.record.key:
            high[row] = 0.0
            column = columns.get(pick.server or "", len(columns))
            low[row, column] = high[row, column] = 1.0
    return Bounds(bounds.seen, low, high)


def by_draw(upstream: Upstream, case: Case, columns: dict[str, int], bounds: Bounds) -> Bounds:
    """The odds of a draw by weight."""
    group = group_of(upstream, case.addresses)
    if len(group.live) < 2 or any(server.max_conns for server in upstream.servers):
        return bounds
    row = np.zeros(len(columns) + 1)
    for peer, chance in odds_of(group, group.live).items():
        row[columns[peer.name]] += chance
    odds = np.tile(row / row.sum(), (bounds.number, 1))
    return Bounds(bounds.seen, odds, odds)


def by_time(upstream: Upstream, case: Case, hits: list[Hit]) -> tuple[Array, Array]:
    """The bounds of turns and loads, by the times of the log; one column for each server line."""
    low = np.zeros((len(hits), len(upstream.servers)))
    high = np.ones_like(low)
    if upstream.record.by_turns:
        low, high = by_turn(upstream, case, windows(upstream, hits).widened(slack(case)))
    elif upstream.record.by_draw and upstream.record.by_load:
        if len(group_of(upstream, {}).live) > 1:
            draws = picks.random_two(upstream, hits, slack(case))
            low, high = draws.low, np.minimum(draws.high, 1.0)
            high = np.maximum(high, undrawn(upstream, {}))
            low[~draws.on.undisturbed], high[~draws.on.undisturbed] = 0.0, 1.0
        return low, high
    elif upstream.record.by_load:
        low, high = by_load(upstream, case, hits)
    return low, high


def slack(case: Case) -> float:
    """The ms by which every time may be off: the log's grain, more if the clock is known to lag."""
    return picks.EXACT if case.clock <= picks.WIDE else case.clock


def by_turn(upstream: Upstream, case: Case, seen: Windows) -> tuple[Array, Array]:
    """Which servers may have been due while a pick was made; unknown where servers failed."""
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


def by_load(upstream: Upstream, case: Case, hits: list[Hit]) -> tuple[Array, Array]:
    """Which servers may have had the least load per weight at each pick; equals take turns."""
    on = picks.ground(upstream, hits, slack(case))
    load = picks.loads_of(upstream, on)
    weights = np.array([server.weight for server in upstream.servers])
    least = np.where(on.possible, load[0] / weights, np.inf)
    most = np.where(on.certain, load[1] / weights, np.inf)
    best = most.min(axis=1, keepdims=True)
    high = (on.possible & (least <= best)).astype(float)
    low = high * (high.sum(axis=1, keepdims=True) == 1) * on.certain
    low[~on.undisturbed], high[~on.undisturbed] = 0.0, 1.0
    return low, high
