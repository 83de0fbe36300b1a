"""The last step of a verdict: compare a claim that fits the evidence with its alternatives."""

from dataclasses import replace

import numpy as np

from ...word import Word
from .. import replay
from ..case import Case, Verdict, column_of
from ..chance.bounds import Bounds
from ..rules.keys import shows_cookie_of_nginx
from .hypotheses import NO_STICKY
from .likelihoods import likelihoods
from .weighing import Weighing, likeliest, weigh

SHOWN = 4  # alternatives that an UNSURE names


def conclude(case: Case, verdict: Verdict, *, named: bool = True) -> Verdict:
    """The verdict on a claim that fits the evidence, after comparing its alternatives."""
    claim = bounds_of_claim(case)
    weighed = weigh(case, claim)
    if weighed.better:
        name = (likeliest(case, claim) if named else "") or weighed.better
        return case.says(Word.FAIL, f"looks like {name}", decided=verdict.decided)
    if weighed.possible and case.upstream.sticky and not case.sequential and case.order is None:
        why = f"{verdict.why}; the order in which the others took their turns is unknown"
        return case.says(Word.UNSURE, why, f"lab run {case.label} -c 1", verdict.decided)
    if weighed.possible:
        return undecided(case, weighed, verdict.decided)
    if shows_cookie_of_nginx(case):
        weighed = replace(weighed, same=tuple(name for name in weighed.same if name != NO_STICKY))
    if NO_STICKY in weighed.same:  # an nginx without sticky sets no cookie that could bind
        if case.sequential and case.returning:
            why = f"no cookie in {case.returning:,} requests of clients that return theirs"
            return case.says(Word.FAIL, f"{why}; looks like no sticky")
        return case.says(Word.UNSURE, "no request was bound to a server", f"lab run {case.label}")
    why = f"{verdict.why}; {weighed.text}" if weighed.text else verdict.why
    return case.says(Word.PASS, why, decided=verdict.decided)


def undecided(case: Case, weighed: Weighing, decided: float | None) -> Verdict:
    """UNSURE: the alternatives that are still possible, and the run that would decide."""
    shown = list(weighed.possible[:SHOWN])
    if len(weighed.possible) > SHOWN:
        shown.append(f"{len(weighed.possible) - SHOWN} more")
    why = f"{len(case.hits):,} hits do not exclude {', '.join(shown)}"
    unsure = case.says(Word.UNSURE, why, deciding_run(case, weighed), decided)
    return replace(unsure, needed=requests_needed(case, weighed))


def requests_needed(case: Case, weighed: Weighing) -> int:
    """About how many hits would exclude what is still possible; 0 if more alone would not."""
    return max(weighed.needed, len(case.hits) + 100) if weighed.needed else 0


def deciding_run(case: Case, weighed: Weighing) -> str:
    """The command of a run that would exclude the remaining alternatives."""
    if needed := requests_needed(case, weighed):
        return f"lab run {case.label} -n {needed}"
    if case.upstream.record.by_draw_alone:  # at any concurrency, more draws decide
        return f"lab run {case.label} -n {2 * len(case.hits)}"
    if case.sequential:
        return f"lab run {case.label} -c 20"
    if not case.upstream.record.by_load:
        return f"lab run {case.label} -c 1"
    return f"lab run {case.label} -c {max(2, at_once(case) // 2)}"


def at_once(case: Case) -> int:
    """The average number of requests in flight."""
    begun = min(replay.start(hit) for hit in case.hits)
    span = max(max(hit.msec for hit in case.hits) - begun, 0.001)
    return round(sum(hit.request_time for hit in case.hits) / span)


def failed(case: Case, why: str, first: int = 0) -> Verdict:
    """FAIL, with the alternative that explains the evidence best."""
    looks = ""
    if not case.alone and len(column_of(case)) > 1:
        looks = likeliest(case, bounds_of_evidence(case), first)
    return case.says(Word.FAIL, f"{why}; looks like {looks}" if looks else why)


def bounds_of_claim(case: Case) -> Bounds:
    """The claim's bounds; after an exact comparison each picked server has probability 1."""
    exact = case.sequential and not case.upstream.record.by_draw and case.order is None
    return certain_bounds(case) if exact else bounds_of_evidence(case)


def bounds_of_evidence(case: Case) -> Bounds:
    """The claim's bounds, computed in the same way as those of alternatives."""
    return likelihoods(case.upstream, case)


def certain_bounds(case: Case) -> Bounds:
    """Bounds in which every picked server has probability 1."""
    columns = column_of(case)
    tried = (name for hit in case.hits for name in hit.upstream_addr)
    seen = np.array([columns.get(name, len(columns)) for name in tried], dtype=int)
    certain = np.zeros((len(seen), len(columns) + 1))
    certain[np.arange(len(seen)), seen] = 1.0
    return Bounds(seen, certain, certain)
