"""Judge picks by the load in the log at their time."""

from collections.abc import Sequence

import numpy as np

from ...evidence.access_log import Hit
from ...word import Word
from .. import replay
from ..case import Case, Verdict, shortened
from ..chance import odds
from ..replay import picks
from ..replay.picks import Draws, Tally
from ..replay.windows import EXACT, WIDE, windows
from .draws import missing_pair_probability

DECIDED = 0.25  # share of picks that the log must decide for a PASS by load
DECIDED_DRAWS = 0.1  # the same for two draws, which few loads decide
ENOUGH = 500  # decided picks that are enough for a PASS, whatever their share
WRONG = 0.02  # share of decided picks that may look wrong, because workers' clocks sometimes lag
HOPELESS = 0.2  # the same before alternatives are weighed
BLURRED = 0.05  # the same if the log's times are taken as exact


def by_load(case: Case) -> Verdict:
    """Compare each pick with the load in the log at its time."""
    hits = (*case.earlier, *case.hits)
    answered = [hit for hit in hits if replay.seen(case.upstream, hit).server is not None]
    if reason := unclear(case):
        return case.says(Word.UNSURE, reason, f"lab run {case.label} -c 1")
    logged = windows(case.upstream, answered, case.served)
    bounds = [
        logged.widened(WIDE, case.stall),
        logged.widened(EXACT, case.stall),
        logged.widened(EXACT),
    ]
    bases = [
        picks.basis(case.upstream, answered, seen, case.since, case.unanswered) for seen in bounds
    ]
    if case.upstream.record.by_draw:
        draws = [picks.random_two(case.upstream, on) for on in bases]
        return weighed(
            case,
            answered,
            [picks.draws_tally(drawn) for drawn in draws],
            miscounted(case, draws[0]) or overpicks_least_loaded(draws[1]),
            missing_pair_probability(case.upstream, case.addresses),
        )
    tallies = [picks.least_loaded(case.upstream, on) for on in bases]
    return weighed(case, answered, tallies)


def overlapping(case: Case) -> Verdict:
    """Judge the picks that the log decides, before alternatives are compared.

    A lagging clock makes some right picks look wrong. So a claim fails here only if many picks are
    wrong.
    """
    if reason := unclear(case):
        return case.says(Word.UNSURE, reason, f"lab run {case.label} -c 1")
    seen = case.wide_windows
    on = picks.basis(case.upstream, case.answered, seen, unanswered=case.unanswered)
    if case.upstream.record.by_draw:
        draws = picks.random_two(case.upstream, on)
        if why := miscounted(case, draws):
            return case.says(Word.FAIL, why)
        tally = picks.draws_tally(draws)
    else:
        tally = picks.least_loaded(case.upstream, on)
    share = tally.decided / max(tally.picks, 1)
    why = f"{tally.wrong:,} of {tally.decided:,} decided picks contradict the load"
    if tally.wrong > max(2, HOPELESS * tally.decided):
        return case.says(Word.FAIL, why, decided=share)
    right = decided_right(tally)
    if not case.upstream.record.by_draw:
        right += ", ties not compared"
    return case.says(Word.PASS, right, decided=share)


def unclear(case: Case) -> str:
    """Why the log cannot decide picks by load; empty if it can."""
    names = [server.name for server in case.upstream.servers]
    if len(set(names)) < len(names) or any(len(peers) > 1 for peers in case.addresses.values()):
        return (
            "servers with the same name are one in the log, so their loads cannot be distinguished"
        )
    if "inflight" in case.upstream.measure:
        return "the age of running requests that nginx saw is not in the log"
    if not case.fresh and case.upstream.record.by_time:
        return "nginx had served requests before, and their response times are not in the log"
    return ""


def weighed(
    case: Case,
    hits: Sequence[Hit],
    tallies: Sequence[Tally],
    unlikely: str = "",
    by_turns: float = 0.0,
) -> Verdict:
    """FAIL only if the error exceeds the clock uncertainty; PASS only on decided picks.

    `tallies` are by wide bounds, by exact ones, and by exact ones that ignore delays of workers,
    which decide the most picks, some of them wrongly. `by_turns` is the probability that a pick
    does not depend on the load.
    """
    wide, *sharp = tallies
    needed = min(wide.picks * (DECIDED_DRAWS if case.upstream.record.by_draw else DECIDED), ENOUGH)
    exact = next((tally for tally in sharp if tally.decided >= needed), sharp[-1])
    share = exact.decided / max(exact.picks, 1)
    excused = odds.band(by_turns, wide.picks, 1)[1] if by_turns > 0 else 0
    doubt = max(case.clock, WIDE)
    if wide.wrong > max(2, WRONG * wide.decided) + excused:
        where = first_wrong(hits, wide)
        why = f"{wide.wrong:,} of {wide.decided:,} picks contradict the load, first {where}"
        return case.says(
            Word.FAIL, f"{why}, even if the clock is {doubt:.0f} ms off", decided=share
        )
    if unlikely:
        return case.says(Word.FAIL, unlikely, decided=share)
    if exact.wrong > max(2, BLURRED * exact.decided) + excused:
        why = f"{exact.wrong:,} of {exact.decided:,} picks look wrong by less than {doubt:.0f} ms"
        return case.says(
            Word.UNSURE, f"{why}; lower concurrency would settle it", slower(case), share
        )
    if exact.decided < needed:
        why = (
            f"{exact.decided:,} of {exact.picks:,} picks could be decided, {needed:.0f} are needed"
        )
        return case.says(
            Word.UNSURE, f"{why}; lower concurrency would settle it", slower(case), share
        )
    return case.says(Word.PASS, decided_right(exact), decided=share)


def first_wrong(hits: Sequence[Hit], tally: Tally) -> str:
    """The number of the first request with a wrong pick, with its id if the log has one."""
    number = tally.first or 0
    name = hits[number].request_id
    earlier = len(hits) - tally.picks
    return f"request {number + 1 - earlier:,}" + (f" (id {name})" if name else "")


def decided_right(tally: Tally) -> str:
    """How many picks the log decided, and how many of them were right."""
    right = f"all but {tally.wrong:,} right" if tally.wrong else "all right"
    return f"{tally.right:,} of {tally.picks:,} picks decided, {right}"


def slower(case: Case) -> str:
    """The run that would decide more: half the concurrency."""
    begun = sorted(replay.start(hit) for hit in case.hits)
    span = max(case.hits[-1].msec - begun[0], 0.001)
    at_once = sum(hit.request_time for hit in case.hits) / span
    return f"lab run {case.label} -c {max(2, round(at_once / 2))}"


def miscounted(case: Case, drawn: Draws) -> str:
    """Name a server whose count is outside the bounds of two draws; empty if there is none."""
    calm = drawn.on.undisturbed
    low, high = drawn.low[calm], drawn.high[calm]
    middle = (low + high) / 2
    for number, server in enumerate(case.upstream.servers):
        count = int((drawn.on.seen.server[calm] == number).sum())
        least, most = low[:, number].sum(), high[:, number].sum()
        variance = float((middle[:, number] * (1 - middle[:, number])).sum())
        if odds.far(count, least, most, variance, len(case.upstream.servers) + 1):
            name = shortened(case.upstream)[server.name]
            return f"{name}: {count}, two draws under this load give {least:.0f} to {most:.0f}"
    return ""


def overpicks_least_loaded(drawn: Draws) -> str:
    """State how often the least loaded server won, if draws cannot explain it; else empty.

    An inaccurate clock makes it appear to win less often, never more often.
    """
    calm = drawn.on.undisturbed
    wins_all = drawn.low[calm] >= drawn.best - 1e-12
    sure = np.flatnonzero(wins_all.any(axis=1))
    best = wins_all[sure].argmax(axis=1)
    chance = drawn.best[best]
    wins = int((drawn.on.seen.server[calm][sure] == best).sum())
    expected, variance = float(chance.sum()), float((chance * (1 - chance)).sum())
    if odds.far(wins, 0, expected, variance, len(drawn.best) + 1):
        return f"the least loaded won {wins} of {len(sure)} known picks, expected {expected:.0f}"
    return ""
