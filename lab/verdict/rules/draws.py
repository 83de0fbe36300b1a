"""Judge random draws by their probabilities."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ...nginxconf.model import Upstream
from ...oracle.base import group_of
from ...oracle.random import odds_of
from ...oracle.random_two import pair_odds
from ...word import Word
from .. import replay
from ..case import Case, Verdict, column_of, observed, shortened
from ..chance import groups, odds
from ..chance.bounds import Array, Bounds


def hits_needed(upstream: Upstream, usual: int) -> int:
    """How many hits are needed to judge a log: draws need more than the usual number."""
    if not upstream.record.by_draw or len(upstream.servers) < 2:
        return usual
    return max(usual, odds.draws_to_tell(chances(Case(upstream, (), False, {}, False))))


def only(case: Case, name: str) -> Verdict:
    """Judge draws from a single eligible server."""
    counts = observed(case)
    if set(counts) - {name, None}:
        return case.says(Word.FAIL, f"expected all of them at {shortened(case.upstream)[name]}")
    if counts[None]:
        return case.says(Word.UNSURE, f"{counts[None]:,} hits found no live upstreams")
    return case.says(Word.PASS, f"exact over {len(case.hits):,} hits")


def drawn(case: Case) -> Verdict:
    """Compare counts, and counts of pairs in a row, with independent draws."""
    if case.disturbed:
        return case.says(
            Word.UNSURE,
            "servers failed or were at max_conns, and the log does not show repeated draws; "
            "a run without failures would settle it",
            f"lab run {case.label}",
        )
    hits = sorted(case.hits, key=replay.beginning)
    names = [str(replay.seen(case.upstream, hit).server) for hit in hits]
    expected = chances(case)
    if stray := set(names) - set(expected):
        return case.says(Word.FAIL, f'"{min(stray)}" is never drawn: it is down or a backup')
    total, needed = len(names), odds.draws_to_tell(expected)
    if len(expected) > 1 and odds.improbable(Counter(names), expected):
        return case.says(Word.FAIL, f"expected {banded(case, expected, total)}")
    pairs = {f"{a} {b}": expected[a] * expected[b] for a in expected for b in expected}
    in_a_row = Counter(f"{a} {b}" for a, b in list(pairwise(names))[::2])
    if len(expected) > 1 and (pair := odds.improbable(in_a_row, pairs)):
        seen, due = in_a_row[pair], pairs[pair] * sum(in_a_row.values())
        return case.says(
            Word.FAIL, f"not random: {pair.replace(' ', ' then ')} {seen} times, expected {due:.0f}"
        )
    if why := groups.off_odds(drawn_alike(names, expected), short_names(case, expected)):
        return case.says(Word.FAIL, f"not random: {why}")
    if case.alone and total < needed:
        return case.says(
            Word.UNSURE,
            f"{total:,} hits; {needed:,} would settle it",
            f"lab run {case.label} -n {needed}",
        )
    return case.says(Word.PASS, f"within {banded(case, expected, total)} over {total:,} hits")


def drawn_alike(names: Sequence[str], expected: Mapping[str, float]) -> Bounds:
    """The bounds of identically distributed draws, with the servers that were drawn."""
    columns = {name: number for number, name in enumerate(expected)}
    rows = np.tile([*expected.values(), 0.0], (len(names), 1))
    return Bounds(np.array([columns[name] for name in names]), rows, rows)


def always_drawn(upstream: Upstream, case: Case) -> bool:
    """Whether every pick is a draw by weight, with the same probabilities for each request."""
    group = group_of(upstream, case.addresses)
    return (
        upstream.record.by_draw_alone
        and not upstream.sticky
        and len(group.live) > 1
        and not any(server.max_conns for server in upstream.servers)
        and not case.disturbed
    )


def bounds_of_draw(upstream: Upstream, case: Case, seen: Array) -> Bounds:
    """The probabilities of a draw by weight, at every pick."""
    columns, group = column_of(case), group_of(upstream, case.addresses)
    row = np.zeros(len(columns) + 1)
    for peer, chance in odds_of(group, group.live).items():
        row[columns[peer.name]] += chance
    odds = np.tile(row / row.sum(), (len(seen), 1))
    return Bounds(seen, odds, odds)


def short_names(case: Case, names: Iterable[str]) -> list[str]:
    """Servers' names as a split writes them."""
    return [shortened(case.upstream)[name] for name in names]


def chances(case: Case) -> dict[str, float]:
    """The probability of each server on an idle upstream.

    If two draws yield no second server, round robin decides: each server gets its weight's share.
    """
    group = group_of(case.upstream, case.addresses)
    if case.upstream.record.by_draw_alone:
        by_peer = odds_of(group, group.live)
    else:
        by_peer = dict.fromkeys(group.live, 0.0)
        for (_, second), chance in pair_odds(group, group.live).items():
            by_peer[second] += chance
    left = 1 - sum(by_peer.values())
    weight = sum(peer.weight for peer in group.live)
    summed: dict[str, float] = {}
    for peer, chance in by_peer.items():
        summed[peer.name] = summed.get(peer.name, 0.0) + chance + left * peer.weight / weight
    return summed


def banded(case: Case, expected: Mapping[str, float], total: int) -> str:
    """The range of each server's count: "b: 333 ± 90", or "333 ± 90 each" if all are equal."""
    names = shortened(case.upstream)
    bands = {name: odds.band(chance, total, len(expected)) for name, chance in expected.items()}
    texts = {
        name: f"{chance * total:.0f} ± {max(bands[name][1] - chance * total, 0):.0f}"
        for name, chance in expected.items()
    }
    if len(set(texts.values())) == 1 and len(texts) > 1:
        return f"{next(iter(texts.values()))} each"
    return ", ".join(f"{names[name]}: {text}" for name, text in texts.items())


def missing_pair_probability(upstream: Upstream, addresses: Mapping[str, tuple[str, ...]]) -> float:
    """The highest probability that the draws of random_two yield no second server.

    Then all draws returned the first server again, or one that is down, and round robin decides.
    """
    group, method = group_of(upstream, addresses), upstream.record
    if not (method.by_draw and method.by_load) or len(group.live) < 2:
        return 0.0
    chances = odds_of(group, group.live)
    live = sum(peer.server.weight for peer in group.live)
    return sum(
        chance * (1 - (live - peer.server.weight) / group.total_weight) ** 19
        for peer, chance in chances.items()
    )
