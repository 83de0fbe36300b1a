"""The probability of each pick under a hypothesis, from nginx's order or from the log."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...evidence.access_log import Hit
from ...evidence.trace import PICK, RELEASE, TIMED, Step
from ...nginxconf.model import Upstream
from ...oracle import retry
from ...oracle.base import group_of
from .. import replay
from ..case import Case, column_of
from ..chance.bounds import Array, Bounds, unknown
from ..replay import ordered
from ..rules.draws import always_drawn, bounds_of_draw, missing_pair_probability
from . import logged


def likelihoods(upstream: Upstream, case: Case, number: int | None = None) -> Bounds:
    """The bounds of the case's first `number` picks (all by default) under a hypothesis.

    Rows are picks, columns the claim's servers. All hypotheses of a case have the same rows.
    """
    steps = order_of(case, number)
    if steps is None:
        return logged.likelihoods(upstream, case, number)
    return by_steps(upstream, case, steps).first(number)


def by_steps(upstream: Upstream, case: Case, steps: Sequence[Step]) -> Bounds:
    """The bounds of the picks of an order under a hypothesis."""
    picks = [step for step in steps if step.kind == PICK]
    columns = column_of(case)
    seen = np.array([columns.get(step.server, len(columns)) for step in picks], dtype=int)
    if always_drawn(upstream, case):
        return bounds_of_draw(upstream, case, seen)
    if ordered.undecidable(upstream, case.addresses):
        return unknown(seen, len(columns) + 1)
    weighed = ordered.weigh(upstream, hits_of(case, steps), steps, case.addresses)
    bounds = bounds_of(weighed, seen, columns)
    return with_turns(upstream, case, bounds) if upstream.record.by_draw else bounds


def with_turns(upstream: Upstream, case: Case, bounds: Bounds) -> Bounds:
    """Widen the bounds of draws that may fall back to round robin, whose state is unknown."""
    columns, high = column_of(case), bounds.high.copy()
    for peer in group_of(upstream, case.addresses).live:
        column = high[:, columns[peer.name]]
        np.maximum(column, missing_pair_probability(upstream, case.addresses), out=column)
    return replace(bounds, high=high)


def bounds_of(weighed: Sequence[ordered.Weighed], seen: Array, columns: dict[str, int]) -> Bounds:
    """The weighed picks as rows of bounds; picks that the order does not decide are 0 to 1."""
    low = np.zeros((len(seen), len(columns) + 1))
    high = np.zeros_like(low)
    nobody = len(columns)
    for row, pick in enumerate(weighed):
        for name, chance in pick.least.items():
            low[row, columns.get(name, nobody) if name else nobody] = chance
        for name, chance in pick.most.items():
            high[row, columns.get(name, nobody) if name else nobody] = chance
        low[row, seen[row]], high[row, seen[row]] = pick.low, pick.high
    return Bounds(seen, low, high)


def order_of(case: Case, number: int | None) -> Sequence[Step] | None:
    """The steps with the first picks, or with all; None if the evidence has no order.

    Sequential requests are in the order of the log.
    """
    if case.order is not None:
        return case.order if number is None else with_picks(case.order, number)
    if not case.sequential:
        return None
    steps = one_after_the_other(case)
    return list(steps) if number is None else with_picks(steps, number)


def with_picks(steps: Iterable[Step], number: int) -> list[Step]:
    """The first steps with at least a number of picks, and all that overlap them.

    A release that the trace has after a pick may have happened before it: without that release the
    pick would seem to contradict a true hypothesis.
    """
    kept: list[Step] = []
    for cluster in ordered.clusters(steps):
        if number <= 0:
            break
        kept += cluster
        number -= sum(step.kind == PICK for step in cluster)
    return kept


def one_after_the_other(case: Case) -> Iterator[Step]:
    """The order of sequential requests: none began before the previous one ended."""
    line = 0
    for number, hit in enumerate(case.hits):
        now = replay.start(hit)
        for attempt, server in enumerate(hit.upstream_addr):
            second = int(now)
            kinds = (PICK,) if is_nobody(case.upstream, server) else (PICK, TIMED, RELEASE)
            now += replay.value_at(hit.upstream_response_time, attempt) or 0.0
            for kind in kinds:
                second = second if kind == PICK else int(now)
                failed = kind == RELEASE and has_failed(case.upstream, hit, attempt)
                line += 1
                yield Step(
                    str(number), attempt, kind, failed, server, hit.pid, second, line, line + 1
                )


def is_nobody(upstream: Upstream, server: str) -> bool:
    """Whether a server in the log is the upstream's name, which means that none was live."""
    return server == upstream.name and all(known.name != server for known in upstream.servers)


def has_failed(upstream: Upstream, hit: Hit, attempt: int) -> bool:
    """Whether nginx counts an attempt as a failure of the server."""
    if replay.succeeded(hit):
        return False
    kind = replay.fault(upstream, hit, attempt)
    last = attempt == len(hit.upstream_addr) - 1
    return kind in retry.TRANSPORT or bool(kind and not last and kind not in retry.HARMLESS)


def hits_of(case: Case, steps: Sequence[Step]) -> Mapping[str, Hit]:
    """The hits of an order, by the ids that it has."""
    if case.order is not None:
        return case.by_id
    last = int(steps[-1].request_id) + 1 if steps else 0
    return {str(number): hit for number, hit in enumerate(case.hits[:last])}
