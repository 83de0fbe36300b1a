"""Judge sequential requests, each by its prediction."""

import copy
from collections.abc import Iterator
from itertools import islice

from msgspec import structs

from ...nginxconf.model import Sticky
from ...oracle import Arrival, Balancer, Pick, balancer
from ...word import Word
from .. import replay
from ..case import CLOCK, Case, Verdict, difference
from .turns import in_phase

GRAIN = 0.002  # seconds by which the parts of a request may fall short of the whole, by rounding


def one_by_one(case: Case) -> Verdict:
    """Compare every request with its prediction, in order."""
    if reason := unreadable(case.upstream.sticky):
        return case.says(Word.UNSURE, reason)
    if not case.fresh and not case.upstream.record.by_request:
        return in_phase(case)
    if unpredicted := first_difference(case):
        return case.says(Word.FAIL, difference(case, *unpredicted))
    return case.says(Word.PASS, f"exact over {len(case.hits):,} hits")


def first_difference(case: Case) -> tuple[int, Pick] | None:
    """The first request whose servers were not those predicted, counted from 0, and its Pick.

    Within milliseconds of a full second, nginx's clock may have shown another second than the log.
    Then both cases are followed, and nginx's picks must fit one of them.
    """
    states = [balancer(case.upstream, case.addresses)]
    timed = case.upstream.record.by_time
    for number, hit in enumerate(case.hits):
        arrival = replay.arrival(case.upstream, hit, lasting=timed)
        seen = replay.seen(case.upstream, hit)
        pick = states[0].quick(arrival) if len(states) == 1 else None
        if pick is None and len(states) == 1 and not needs_clock(states[0], arrival, timed=timed):
            pick = served(states[0], arrival)
        if pick is None:
            picked = list(next_states(states, arrival, timed=timed))
            pick = picked[0][1]
            states = distinct_states(
                state for state, other in picked if (other.server, other.attempts) == seen
            ) or [states[0]]
            if any((other.server, other.attempts) == seen for _, other in picked):
                continue
        if (pick.server, pick.attempts) != seen:
            return number, pick
    return None


def next_states(
    states: list[Balancer], arrival: Arrival, *, timed: bool
) -> Iterator[tuple[Balancer, Pick]]:
    """The possible states after a request, with its pick, for each second the clock may show."""
    others = list(possible_times(arrival))
    for state in states:
        if needs_clock(state, arrival, timed=timed):
            for other in others:
                twin = copy.deepcopy(state)
                yield twin, served(twin, other)
        yield state, served(state, arrival)


def needs_clock(state: Balancer, arrival: Arrival, *, timed: bool) -> bool:
    """Whether the second that nginx's clock shows can matter for a request."""
    return timed or bool(arrival.faults) or any(peer.fails for peer in state.peers)


def possible_times(arrival: Arrival) -> Iterator[Arrival]:
    """The request with each second that nginx's clock may have shown, if not the logged one.

    A pick is up to CLOCK after the logged start; an attempt may end GRAIN before its logged end.
    """
    end = arrival.t + sum(took for kind, took in arrival.faults if kind)
    if int(arrival.t + CLOCK) != int(arrival.t) or int(end + CLOCK) != int(end):
        yield structs.replace(arrival, t=arrival.t + CLOCK)
    if int(end - GRAIN) != int(end) > int(arrival.t):
        earlier = tuple((kind, max(0.0, took - GRAIN)) for kind, took in arrival.faults)
        yield structs.replace(arrival, faults=earlier)


def served(state: Balancer, arrival: Arrival) -> Pick:
    """Process one request from beginning to end."""
    request = state.arrive(arrival)
    state.finish()
    return request.pick or Pick(None, ())


def distinct_states(states: Iterator[Balancer]) -> list[Balancer]:
    """The distinct states, at most 16; of equal ones the one with the earliest clock.

    A clock never goes back, so only that one can still reach the times of the others.
    """
    by_state: dict[tuple[object, ...], Balancer] = {}
    for state in sorted(states, key=lambda state: state.now):
        key = tuple(
            (peer.current, peer.effective, peer.fails, peer.accessed, peer.checked)
            for peer in state.peers
        )
        by_state.setdefault(key, state)
    return list(islice(by_state.values(), 16))


def unreadable(sticky: Sticky | None) -> str:
    """Why the log does not show what sticky binds; empty if it does."""
    if sticky is None:
        return ""
    if sticky.kind == "learn":
        return "the log does not contain what sticky learns from responses"
    readable = ("$cookie_", "$arg_")
    if other := [name for name in sticky.lookups if not name.startswith(readable)]:
        return f"the log does not contain {other[0]}, by which sticky binds"
    return ""
