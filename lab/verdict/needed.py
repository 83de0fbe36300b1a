"""How many requests a run needs so that a correct nginx passes at the first try."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np

from ..nginxconf.model import Upstream
from ..oracle.base import group_of
from ..oracle.random_two import pair_odds
from .alternatives.weighing import SHARES, picks_to_tell, weights_of
from .case import Case
from .chance.bounds import Array
from .rules.draws import chances

MOST_RANKED = 5  # servers up to which every order of their loads is considered
MOST = 100_000  # requests that are ever asked for


def requests_for_pass(upstream: Upstream, usual: int = 300) -> int:
    """How many requests a PASS needs with this upstream, at least the usual number.

    For a deterministic method, excluding diverted shares needs the most requests; for draws, also
    excluding other weights.
    """
    names = {server.name for server in upstream.servers if not server.down and not server.backup}
    if len(names) < 2:
        return usual
    if upstream.record.by_draw:
        return max(usual, min(MOST, draws_for_pass(upstream)))
    return max(usual, min(MOST, turns_for_pass(upstream)))


def turns_for_pass(upstream: Upstream) -> int:
    """The number for a method in which every server's share of picks is its weight."""
    group = group_of(upstream, {})
    shares = np.array([peer.weight for peer in group.live], dtype=float)
    rows = list(np.eye(len(shares)))
    return picks_to_tell(rows, shares_taken(rows), weights=shares / shares.sum())


def draws_for_pass(upstream: Upstream) -> int:
    """The number for draws; for random_two under load, where all servers have different loads."""
    rows = rows_of(upstream)
    others = [rows_of(other) for other in weights_of(upstream)]
    return picks_to_tell(rows, [*shares_taken(rows), *others])


def rows_of(upstream: Upstream) -> list[Array]:
    """The probabilities of a draw; for two draws, one row for every order of the loads."""
    live = group_of(upstream, {}).live
    if upstream.record.by_draw_alone or not 2 < len(live) <= MOST_RANKED:
        return [odds_of(upstream)]
    group = group_of(upstream, {})
    pairs = pair_odds(group, group.live)
    at = {peer: number for number, peer in enumerate(group.live)}
    rows = []
    for order in permutations(group.live):
        row = np.zeros(len(live))
        for (first, second), chance in pairs.items():
            row[at[min(first, second, key=order.index)]] += chance
        rows.append(row / row.sum())
    return rows


def odds_of(upstream: Upstream) -> Array:
    """The probability of each server of an idle upstream, in the order of the config."""
    known = chances(Case(upstream, (), False, {}, False))
    return np.array([known.get(server.name, 0.0) for server in upstream.servers])


def shares_taken(rows: Sequence[Array]) -> Iterator[Sequence[Array]]:
    """The same probabilities with each share diverted to each server."""
    for share in SHARES:
        for column in range(len(rows[0])):
            taken = np.eye(len(rows[0]))[column] * share
            yield [row * (1 - share) + taken for row in rows]
