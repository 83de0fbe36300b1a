"""Judge round robin under concurrency: counts must match throughout the run."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ...oracle import Arrival, predict
from ...oracle.base import group_of
from ...word import Word
from .. import replay
from ..case import Case, Verdict, observed, written
from ..replay.windows import WIDE

OUT_OF_TURN = 0.01  # share of moments at which a lagging clock may show a wrong sum
PHASES = 2_000  # turns of round robin that are tried as a start that is not fresh
TURNS = 2  # picks by which a server can be off its share, whatever came before: see `in_turn`
POWER = 2  # standard deviations of a draw that the doubt must lie within to tell turns from draws


def counted(case: Case) -> Verdict:
    """Compare the counts of the servers: turns are exact even if requests overlap."""
    if case.disturbed:
        return in_log_order(case)
    if not case.fresh:
        return in_phase(case)
    expected = list(turns(case, len(case.hits)))
    if Counter(expected) != observed(case):
        return case.says(Word.FAIL, f"expected {written(case.upstream, Counter(expected))}")
    if len(set(expected)) > 1 and (share := out_of_turn(case, expected)) > OUT_OF_TURN:
        return case.says(
            Word.FAIL,
            f"the sum is right, but {share:.0%} of picks came out of turn: "
            "workers without a shared zone count turns separately",
        )
    return case.says(Word.PASS, f"exact over {len(case.hits):,} hits")


def turns(case: Case, number: int) -> Iterator[str | None]:
    """The first servers of an undisturbed upstream, in order."""
    arrivals = (Arrival() for _ in range(number))
    return (pick.server for pick in predict(case.upstream, arrivals, case.addresses))


def out_of_turn(case: Case, expected: Sequence[str | None]) -> float:
    """The share of moments at which a server had been picked too often or too rarely."""
    names = list(dict.fromkeys(server.name for server in case.upstream.servers))
    if len(names) < len(case.upstream.servers):
        return 0.0
    seen = case.windows(case.hits, WIDE)
    before = np.searchsorted(np.sort(seen.pick_to), seen.pick_from, "left")
    until = np.searchsorted(np.sort(seen.pick_from), seen.pick_from, "right")
    off = np.zeros(len(case.hits), dtype=bool)
    for number, name in enumerate(names):
        due = np.concatenate([[0], np.cumsum([server == name for server in expected])])
        picked = seen.server == number
        surely = np.searchsorted(np.sort(seen.pick_to[picked]), seen.pick_from, "left")
        maybe = np.searchsorted(np.sort(seen.pick_from[picked]), seen.pick_from, "right")
        off |= (surely > due[until]) | (maybe < due[before])
    return float(off.mean())


def in_log_order(case: Case) -> Verdict:
    """Replay an upstream with failures under concurrency: PASS if it fits, else UNSURE."""
    hits = sorted(case.hits, key=replay.beginning)
    arrivals = [replay.arrival(case.upstream, hit, lasting=True) for hit in hits]
    expected = Counter(pick.server for pick in predict(case.upstream, arrivals, case.addresses))
    if expected == observed(case):
        return case.says(Word.PASS, f"exact over {len(hits):,} hits, failures replayed as logged")
    return case.says(
        Word.UNSURE,
        "servers failed or were at max_conns while requests overlapped, so their order within "
        "a millisecond decides; concurrency 1 would settle it",
        f"lab run {case.label} -c 1",
    )


def in_phase(case: Case) -> Verdict:
    """Compare with the turns from any point of their cycle, if nginx was not freshly started."""
    total = sum(server.weight for server in case.upstream.servers)
    cycle = list(turns(case, min(total, PHASES))) if not case.disturbed else []
    verdict = in_turn(case) if cycle and not case.sequential else None
    complete = case.since > -math.inf  # else the log may lack hits that would explain a wrong pick
    if verdict and (verdict.word == Word.PASS or complete):
        return verdict
    seen = [replay.seen(case.upstream, hit).server for hit in case.hits]
    for phase in range(0 if verdict else len(cycle)):
        fits = (cycle[(phase + number) % len(cycle)] for number in range(len(seen)))
        right = Counter(fits) == Counter(seen) if not case.sequential else same(fits, seen)
        if right and len(cycle) == total:
            return case.says(Word.PASS, f"exact over {len(seen):,} hits from turn {phase + 1}")
    return case.says(
        Word.UNSURE,
        "nginx had served requests before, and its turns match no point of an undisturbed cycle; "
        "a reload before the run would settle it",
        f"lab run {case.label}",
    )


def in_turn(case: Case) -> Verdict | None:
    """Compare each server's picks with its share at every moment, from an unknown starting turn.

    Of N picks a server of weight w gets (N w + c(0) - c(N)) / W, where c is its current weight and
    W the sum of weights: every pick adds w to each c and subtracts W from the chosen one's. As c
    stays between -W and W, also after failures, that is its share within TURNS, or within TURNS per
    address. None if there are too few hits to distinguish turns from draws.
    """
    shares = shares_of(case)
    hits = [hit for hit in (*case.earlier, *case.hits) if hit.upstream_addr[-1] in shares]
    seen = case.windows(hits, WIDE)
    kept = seen.pick_to >= case.since * 1000
    first, last, server = seen.pick_from[kept], seen.pick_to[kept], seen.server[kept]
    # moments at which all picks since the first moment are known
    moments = first[first >= case.since * 1000]
    if not len(moments):
        return None
    before = np.searchsorted(np.sort(last), moments, "left")
    until = np.searchsorted(np.sort(first), moments, "right")
    doubt = TURNS + float(np.median(until - before))
    spreads = [share * (1 - share) for share in shares.values() if 0 < share < 1]
    needed = (POWER * doubt) ** 2 / min(spreads, default=1)
    off = np.zeros(len(moments), dtype=bool)
    numbers = {line.name: number for number, line in enumerate(case.upstream.servers)}
    for name, share in shares.items():
        picked = server == numbers[name]
        most = np.searchsorted(np.sort(last[picked]), moments, "left") - until * share
        least = np.searchsorted(np.sort(first[picked]), moments, "right") - before * share
        # picks around the first moment may be missing, the same number at every later moment: it
        # lies between all of `most` and all of `least`, but for the share that may be wrong
        began = (np.quantile(most, 1 - OUT_OF_TURN) + np.quantile(least, OUT_OF_TURN)) / 2
        allowed = TURNS * len(case.addresses.get(name, (name,)))
        off |= (most > began + allowed) | (least < began - allowed)
    if (wrong := float(off.mean())) > OUT_OF_TURN:
        why = f"at {wrong:.0%} of picks a server was more than {TURNS} turns off its share"
        return case.says(Word.FAIL, why)
    if len(moments) < needed:
        return None
    return case.says(
        Word.PASS, f"in turn at each of {len(moments):,} hits, from an unknown starting turn"
    )


def shares_of(case: Case) -> dict[str, float]:
    """The share of picks that turns give to each server of the config while none fails."""
    live = [peer.server for peer in group_of(case.upstream, case.addresses).live]
    total = sum(server.weight for server in live)
    shares = dict.fromkeys((server.name for server in case.upstream.servers), 0.0)
    for server in live:
        shares[server.name] += server.weight / total
    return shares


def same(expected: Iterator[str | None], seen: Sequence[str | None]) -> bool:
    """Whether two sequences are equal, evaluated lazily."""
    return all(want == got for want, got in zip(expected, seen, strict=True))
