"""Judge requests that came one after the other, each by its prediction."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from ..oracle import Arrival, Balancer, Pick, balancer
from ..word import Word
from . import replay
from .case import CLOCK, Case, Verdict, difference
from .turns import in_phase

GRAIN = 0.002  # seconds by which the parts of a request may fall short of the whole, by rounding


def one_by_one(case: Case) -> Verdict:
    """Compare every request with its prediction, in order."""
    if case.upstream.sticky and (reason := unseen(case)):
        return case.says(Word.UNSURE, reason)
    if not case.fresh and not case.upstream.record.by_request:
        return in_phase(case)
    found = first_difference(case)
    if found is None:
        return case.says(Word.PASS, f"exact over {len(case.hits):,} hits")
    number, pick = found
    return case.says(Word.FAIL, difference(case, number, pick))


def first_difference(case: Case) -> tuple[int, Pick] | None:
    """The first request whose servers were not those predicted, counted from 0, and its Pick.

    nginx's clock may show another second than the log where a request came within milliseconds
    of its turn; then both are followed, and what nginx did must fit one of them.
    """
    worlds = [balancer(case.upstream, case.addresses)]
    timed = case.upstream.record.by_time
    for number, hit in enumerate(case.hits):
        arrival = replay.arrival(case.upstream, hit, lasting=timed)
        seen = replay.seen(case.upstream, hit)
        pick = worlds[0].quick(arrival) if len(worlds) == 1 else None
        if pick is None:
            picked = list(futures(worlds, arrival, timed=timed))
            pick = picked[0][1]
            worlds = distinct(
                world for world, it in picked if (it.server, it.attempts) == seen
            ) or [worlds[0]]
            if any((it.server, it.attempts) == seen for _, it in picked):
                continue
        if (pick.server, pick.attempts) != seen:
            return number, pick
    return None


def futures(
    worlds: list[Balancer], arrival: Arrival, *, timed: bool
) -> Iterator[tuple[Balancer, Pick]]:
    """Every world after a request, with its pick, for each second that its clock may show."""
    others = list(readings(arrival))
    for world in worlds:
        if timed or arrival.faults or any(peer.fails for peer in world.peers):
            for other in others:
                twin = copy.deepcopy(world)
                yield twin, served(twin, other)
        yield world, served(world, arrival)


def readings(arrival: Arrival) -> Iterator[Arrival]:
    """The request as nginx's clock may have shown it, where that is another second than the log's.

    A pick comes up to CLOCK after the logged start; an attempt may end GRAIN before it seems to.
    """
    end = arrival.t + sum(took for kind, took in arrival.faults if kind)
    if int(arrival.t + CLOCK) != int(arrival.t) or int(end + CLOCK) != int(end):
        yield replace(arrival, t=arrival.t + CLOCK)
    if int(end - GRAIN) != int(end) > int(arrival.t):
        earlier = tuple((kind, max(0.0, took - GRAIN)) for kind, took in arrival.faults)
        yield replace(arrival, faults=earlier)


def served(world: Balancer, arrival: Arrival) -> Pick:
    """One request from beginning to end."""
    request = world.arrive(arrival)
    world.finish()
    return request.pick or Pick(None, ())


def distinct(worlds: Iterator[Balancer]) -> list[Balancer]:
    """The worlds that differ, at most 16."""
    found: dict[tuple[object, ...], Balancer] = {}
    for world in worlds:
        state = tuple(
            (peer.current, peer.effective, peer.fails, peer.accessed, peer.checked)
            for peer in world.peers
        )
        found.setdefault(state, world)
    return list(islice(found.values(), 16))


def unseen(case: Case) -> str:
    """Why the log cannot tell what sticky binds; empty where it can."""
    sticky = case.upstream.sticky
    if sticky is None:
        return ""
    if sticky.kind == "learn":
        return "the log does not hold what sticky learns from answers"
    readable = ("$cookie_", "$arg_")
    if other := [name for name in sticky.lookups if not name.startswith(readable)]:
        return f"the log does not hold {other[0]}, by which sticky binds"
    return ""
