"""Judge picks by the load that the log shows around them."""

from collections.abc import Sequence

import numpy as np

from ..evidence.access_log import Hit
from ..word import Word
from . import odds, picks, replay
from .case import Case, Verdict, shortened
from .draws import undrawn
from .picks import EXACT, Draws, Tally

DECIDED = 0.25  # share of picks that the log must decide for a PASS by load
DECIDED_DRAWS = 0.1  # the same for two draws, which few loads decide
WRONG = 0.02  # share of decided picks that may look wrong: workers' clocks now and then lag
HOPELESS = 0.2  # the same where alternatives are weighed besides
BLURRED = 0.05  # the same at the log's own grain


def by_load(case: Case) -> Verdict:
    """Compare each pick with the load that the log shows around it."""
    hits = (*case.earlier, *case.hits)
    answered = [hit for hit in hits if replay.seen(case.upstream, hit).server is not None]
    if reason := unclear(case):
        return case.says(Word.UNSURE, reason, f"lab run {case.label} -c 1")
    if case.upstream.record.by_draw:
        wide = picks.random_two(case.upstream, answered, case.clock, case.since)
        exact = picks.random_two(case.upstream, answered, EXACT, case.since)
        tallies = picks.draws_tally(wide), picks.draws_tally(exact)
        return weighed(
            case,
            answered,
            *tallies,
            unlikely(case, wide, exact),
            undrawn(case.upstream, case.addresses),
        )
    wide_tally = picks.least_loaded(case.upstream, answered, case.clock, case.since)
    exact_tally = picks.least_loaded(case.upstream, answered, EXACT, case.since)
    return weighed(case, answered, wide_tally, exact_tally)


def overlapping(case: Case) -> Verdict:
    """Say how many picks the log decides, and whether they are right; alternatives decide more.

    A clock that lags makes some right picks look wrong. So only a claim that is wrong at
    many picks fails here.
    """
    if reason := unclear(case):
        return case.says(Word.UNSURE, reason, f"lab run {case.label} -c 1")
    answered = [hit for hit in case.hits if replay.seen(case.upstream, hit).server is not None]
    if case.upstream.record.by_draw:
        draws = picks.random_two(case.upstream, answered, case.clock)
        if why := miscounted(case, draws):
            return case.says(Word.FAIL, why)
        tally = picks.draws_tally(draws)
    else:
        tally = picks.least_loaded(case.upstream, answered, case.clock)
    share = tally.decided / max(tally.picks, 1)
    why = f"{tally.wrong:,} of {tally.decided:,} decided picks were wrong for the load"
    if tally.wrong > max(2, HOPELESS * tally.decided):
        return case.says(Word.FAIL, why, decided=share)
    right = f"{tally.right:,} of {tally.picks:,} picks decided, all but {tally.wrong:,} right"
    return case.says(Word.PASS, right.replace(", all but 0 right", ", all right"), decided=share)


def unclear(case: Case) -> str:
    """Why the log cannot decide picks by load; empty if it can."""
    names = [server.name for server in case.upstream.servers]
    if len(set(names)) < len(names) or any(len(it) > 1 for it in case.addresses.values()):
        return "servers of one name are one in the log, so their loads cannot be told apart"
    if "inflight" in case.upstream.measure:
        return "the age of running requests that nginx saw is not in the log"
    if not case.fresh and case.upstream.record.by_time:
        return "nginx had served requests before, and their response times are not in the log"
    return ""


def weighed(
    case: Case,
    hits: Sequence[Hit],
    wide: Tally,
    exact: Tally,
    unlikely: str = "",
    by_turns: float = 0.0,
) -> Verdict:
    """FAIL only if the error exceeds the clock uncertainty; PASS only on decided picks.

    `by_turns` is the chance that a pick is made without regard to the load.
    """
    share = exact.decided / max(exact.picks, 1)
    excused = odds.band(by_turns, wide.picks, 1)[1] if by_turns > 0 else 0
    if wide.wrong > max(2, WRONG * wide.decided) + excused:
        number = wide.first or 0
        name = hits[number].request_id
        where = f"request {number + 1 - (len(hits) - wide.picks):,}" + (
            f" (id {name})" if name else ""
        )
        why = f"{wide.wrong:,} of {wide.decided:,} picks were wrong for the load, first {where}"
        return case.says(
            Word.FAIL, f"{why}, even if the clock is {case.clock:g} ms off", decided=share
        )
    if unlikely:
        return case.says(Word.FAIL, unlikely, decided=share)
    if exact.wrong > max(2, BLURRED * exact.decided) + excused:
        why = (
            f"{exact.wrong:,} of {exact.decided:,} picks look wrong by less than {case.clock:g} ms"
        )
        return case.says(
            Word.UNSURE, f"{why}; lower concurrency would settle it", slower(case), share
        )
    needed = DECIDED_DRAWS if case.upstream.record.by_draw else DECIDED
    if share < needed:
        why = f"{share:.0%} of {exact.picks:,} picks could be decided, {needed:.0%} are needed"
        return case.says(
            Word.UNSURE, f"{why}; lower concurrency would settle it", slower(case), share
        )
    why = f"{exact.right:,} of {exact.picks:,} picks decided, all but {exact.wrong:,} right"
    why = why if exact.wrong else why.replace(", all but 0 right", ", all right")
    return case.says(Word.PASS, why, decided=share)


def slower(case: Case) -> str:
    """The run that would decide more: half the concurrency."""
    begun = sorted(replay.start(hit) for hit in case.hits)
    span = max(case.hits[-1].msec - begun[0], 0.001)
    at_once = sum(hit.request_time for hit in case.hits) / span
    return f"lab run {case.label} -c {max(2, round(at_once / 2))}"


def unlikely(case: Case, wide: Draws, exact: Draws) -> str:
    """What two draws per pick cannot explain; empty where they can."""
    return miscounted(case, wide) or overpicks_least_loaded(exact)


def miscounted(case: Case, drawn: Draws) -> str:
    """A server whose count is out of the bounds that two draws give under this load."""
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
    """Whether the least loaded won more often than it can have been drawn.

    A clock that is out of step makes it seem to win less often, never more.
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
