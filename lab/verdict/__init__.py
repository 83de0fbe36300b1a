"""Compare what nginx did with what it must do: PASS, FAIL or UNSURE, why, and what is excluded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..evidence.access_log import Hit
from ..evidence.trace import Step
from ..nginxconf.model import Upstream
from ..oracle.base import group_of
from ..word import Word
from . import replay
from .case import CLOCK, Case, Verdict, disturbed
from .conclusion import conclude, failed
from .draws import drawn, hits_to_tell, only
from .exact import one_by_one
from .facts import first_fact
from .keys import bound_ones, keyed
from .loads import by_load, overlapping
from .orders import by_order, traced
from .picks import WIDE
from .turns import counted

__all__ = ["Verdict", "hits_to_tell", "judge"]


def judge(
    upstream: Upstream,
    hits: Sequence[Hit],
    *,
    sequential: bool,
    addresses: Mapping[str, tuple[str, ...]] | None = None,
    fresh: bool = True,
    clock: float = WIDE,
    since: float = -math.inf,
    order: Sequence[Step] | None = None,
    alone: bool = False,
    returning: int = 0,
) -> Verdict:
    """Say whether the hits, their addresses already mapped to server names, are what nginx must do.

    `sequential` says that no request began before the last one ended; `addresses` what each
    server's name resolves to; `fresh` that nginx was reloaded just before. `since` is a moment
    from which on requests are judged, in a log that holds all there were before and after it.
    `order` is nginx's own order of picks and releases, where there is a trace of it. `returning`
    is how many requests came from clients that return the cookies of earlier responses.
    The oracle is given requests, times and faults, never who answered. With `alone`, and where a
    log does not begin with a fresh nginx, the claim alone is judged; else also its alternatives.
    """
    case = case_of(
        Case(
            upstream,
            (),
            sequential,
            addresses or {},
            fresh,
            max(clock, WIDE),
            since,
            order=order,
            alone=alone or not fresh or since > -math.inf or several_addresses(addresses or {}),
            returning=returning,
        ),
        hits,
    )
    hits = case.hits
    if not hits:
        return case.says(Word.UNSURE, "no hits", f"lab run {case.label}")
    if strangers := replay.unknown(upstream, hits):
        name, number = next(iter(strangers.items()))
        return case.says(
            Word.FAIL, f'hit {number:,} went to "{name}", which is not in the upstream'
        )
    if fact := first_fact(case):
        return failed(case, fact.text(case), fact.number)
    if not sequential and all(replay.seen(upstream, hit).server is None for hit in hits):
        return case.says(
            Word.UNSURE, "every request found no live upstreams", f"lab run {case.label}"
        )
    if own_state(case) and not traced(case):
        return by_worker(case) if case.alone or not sequential else by_order(case)
    claims = list(replay.orders(upstream))
    for claim in claims[1:]:  # DNS decides their order
        verdict = judge_one(replace(case, upstream=claim), named=False)
        if verdict.word == Word.PASS:
            return verdict
    return judge_one(replace(case, upstream=claims[0]))


def several_addresses(addresses: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a server's name stands for several peers, which alternatives cannot tell apart."""
    return any(len(peers) > 1 for peers in addresses.values())


def case_of(case: Case, hits: Sequence[Hit]) -> Case:
    """The case with its hits: those to judge, and those that were open when it begins."""
    near = CLOCK + case.clock / 1000
    judged = tuple(hit for hit in hits if replay.start(hit) >= case.since)
    earlier = (hit for hit in hits if replay.start(hit) < case.since <= hit.msec + near)
    return replace(
        case,
        hits=judged,
        by_id={hit.request_id: hit for hit in judged} if case.order is not None else {},
        earlier=tuple(earlier),
        disturbed=disturbed(case.upstream, judged),
        workers=max(1, len({hit.pid for hit in judged})),
    )


def judge_one(case: Case, *, named: bool = True) -> Verdict:
    """Judge a log against servers in one order; `named`: a FAIL says what it looks like."""
    if case.alone:
        return against_claim(case)
    if traced(case):
        return by_order(case, named=named)
    verdict = against_claim(case)
    if verdict.word == Word.FAIL and named:
        return failed(case, verdict.why)
    return conclude(case, verdict, named=named) if verdict.word == Word.PASS else verdict


def against_claim(case: Case) -> Verdict:
    """Compare a log with the claim alone, all workers together."""
    upstream = case.upstream
    peers = group_of(upstream, case.addresses)
    if upstream.record.by_draw and len(peers.live) == 1 and not peers.backup:
        return only(case, peers.live[0].name)
    draws = upstream.record.by_draw and len(peers.peers) > 1
    if draws and not upstream.sticky and (case.sequential or not upstream.record.by_load):
        return drawn(case)
    if case.sequential and not draws:
        return one_by_one(case)
    if upstream.sticky:
        return bound_ones(case)
    if len(peers.peers) < 2 or upstream.record.by_turns:
        return counted(case)
    if upstream.record.by_request:
        return keyed(case)
    return by_load(case) if case.alone else overlapping(case)


def own_state(case: Case) -> bool:
    """Whether workers pick independently and the log has several."""
    stateless = case.upstream.record.stateless and not case.upstream.sticky
    return not case.upstream.zone and not stateless and case.workers > 1


def by_worker(case: Case) -> Verdict:
    """Judge each worker's hits separately: without a zone workers share neither turns nor loads."""
    zoned = replace(case.upstream, zone=True)
    pids = sorted({hit.pid for hit in case.hits})
    verdicts = [
        judge(
            zoned,
            [hit for hit in (*case.earlier, *case.hits) if hit.pid == pid],
            sequential=case.sequential,
            addresses=case.addresses,
            fresh=case.fresh,
            clock=case.clock,
            since=case.since,
            alone=case.alone,
        )
        for pid in pids
    ]
    for word in (Word.FAIL, Word.UNSURE):
        for pid, verdict in zip(pids, verdicts, strict=True):
            if verdict.word == word:
                why = f"worker {pid}, which has no zone to share: {verdict.why}"
                return case.says(word, why, verdict.command, verdict.decided)
    first = verdicts[0].why
    return case.says(Word.PASS, f"{first}, and so on for each of {len(pids)} workers, no zone")
