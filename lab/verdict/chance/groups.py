"""Compare random draws with their probabilities in every group of picks, not only in total.

A group is defined before its picks are made: picks after a pick of one server, picks in one part
of the run, picks at which one server had the most requests in flight.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...evidence.trace import PICK, RELEASE, Step
from . import odds
from .bounds import Array, Bounds

PARTS = 5  # of a run; the counts in each must match the probabilities
MOST_PAIRED = 10  # servers up to which picks are compared by the server of an earlier pick
MOST_BACK = 5  # picks back to that earlier pick, at most


@dataclass(frozen=True, slots=True)
class Group:
    """A group of picks by their rows, and the column of the server to count in each."""

    name: str
    rows: Array
    columns: Array


def off_odds(claim: Bounds, names: Sequence[str], loads: Array | None = None) -> str:
    """The first group in which a server was picked more or less often than expected, as text.

    Empty if there is none. `loads` are the requests in flight on each server at each pick.
    """
    known = claim.known
    all_groups = list(groups(claim.seen, names, loads))
    for group in all_groups:
        kept = known[group.rows]
        rows, columns = group.rows[kept], group.columns[kept]
        chances = claim.low[rows, columns]
        count, expected = int((claim.seen[rows] == columns).sum()), float(chances.sum())
        variance = float((chances * (1 - chances)).sum())
        if odds.far(count, expected, expected, variance, len(all_groups)):
            return f"{group.name}: {count:,}, expected {expected:,.0f}"
    return ""


def groups(seen: Array, names: Sequence[str], loads: Array | None) -> Iterator[Group]:
    """Every group of picks whose counts are compared with the probabilities."""
    rows = np.arange(len(seen))
    servers = range(len(names))
    for server in servers:
        yield Group(names[server], rows, np.full(len(rows), server))
    for number, part in enumerate(np.array_split(rows, PARTS), 1):
        for server in servers:
            name = f"{names[server]} in part {number} of {PARTS} of the run"
            yield Group(name, part, np.full(len(part), server))
    yield Group("the same server again", rows[1:], seen[:-1])
    for back in range(1, 1 + MOST_BACK) if len(names) <= MOST_PAIRED else ():
        later, before = rows[back:], seen[:-back]
        for first in servers:
            after = later[before == first]
            for server in servers:
                name = f"{names[server]} {place(back)} after {names[first]}"
                yield Group(name, after, np.full(len(after), server))
    if loads is not None and len(names) > 1:
        yield alone("the server with the most requests in flight", loads)
        yield alone("the server with the fewest requests in flight", -loads)


def place(back: int) -> str:
    """Text for the distance of a pick to an earlier one."""
    return "right" if back == 1 else f"{back} picks"


def alone(name: str, values: Array) -> Group:
    """The picks at which one server had a higher value than every other, and that server."""
    highest = values.max(axis=1, keepdims=True)
    rows = np.flatnonzero((values == highest).sum(axis=1) == 1)
    return Group(name, rows, values[rows].argmax(axis=1))


def loads_of(steps: Sequence[Step], columns: dict[str, int]) -> Array:
    """The requests in flight on each server at each pick of an order."""
    in_flight = [0] * len(columns)
    loads = []
    for step in steps:
        column = columns.get(step.server)
        if step.kind == PICK:
            loads.append(list(in_flight))
        if column is not None and step.kind in (PICK, RELEASE):
            in_flight[column] += 1 if step.kind == PICK else -1
    return np.array(loads).reshape(len(loads), len(columns))
