"""Judge draws by their odds."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from ..nginxconf.model import Upstream
from ..oracle.base import group_of
from ..oracle.random import odds_of
from ..oracle.random_two import pair_odds
from ..word import Word
from . import odds, replay
from .case import Case, Verdict, observed, shortened


def hits_to_tell(upstream: Upstream, usual: int) -> int:
    """How many hits it takes to judge a log: draws need more than the usual."""
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
    hits = sorted(case.hits, key=replay.start)
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
            Word.FAIL, f"not drawn: {pair.replace(' ', ' then ')} {seen} times, expected {due:.0f}"
        )
    if case.alone and total < needed:
        return case.says(
            Word.UNSURE,
            f"{total:,} hits; {needed:,} would settle it",
            f"lab run {case.label} -n {needed}",
        )
    return case.says(Word.PASS, f"within {banded(case, expected, total)} over {total:,} hits")


def chances(case: Case) -> dict[str, float]:
    """The probability of each server on an idle upstream."""
    group = group_of(case.upstream, case.addresses)
    if case.upstream.record.by_draw_alone:
        by_peer = odds_of(group, group.live)
    else:
        by_peer = dict.fromkeys(group.live, 0.0)
        for (_, second), chance in pair_odds(group, group.live).items():
            by_peer[second] += chance
    summed: dict[str, float] = {}
    for peer, chance in by_peer.items():
        summed[peer.name] = summed.get(peer.name, 0.0) + chance
    return {name: chance / sum(summed.values()) for name, chance in summed.items()}


def banded(case: Case, expected: Mapping[str, float], total: int) -> str:
    """What chance allows each server: "b: 333 ± 90", or "333 ± 90 each" where all are alike."""
    names = shortened(case.upstream)
    bands = {name: odds.band(chance, total, len(expected)) for name, chance in expected.items()}
    texts = {
        name: f"{chance * total:.0f} ± {max(bands[name][1] - chance * total, 0):.0f}"
        for name, chance in expected.items()
    }
    if len(set(texts.values())) == 1 and len(texts) > 1:
        return f"{next(iter(texts.values()))} each"
    return ", ".join(f"{names[name]}: {text}" for name, text in texts.items())


def undrawn(upstream: Upstream, addresses: Mapping[str, tuple[str, ...]]) -> float:
    """The highest probability that the draws of random_two bring no second server.

    Draws of the first server again, or of one that is down, are all that then came; turns decide.
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
