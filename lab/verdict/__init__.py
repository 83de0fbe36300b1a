"""Compare nginx's picks with the prediction: PASS, FAIL or UNSURE, and the reason."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from msgspec import structs

from ..evidence.access_log import Hit
from ..evidence.trace import Step
from ..nginxconf.model import Upstream
from ..oracle.base import group_of
from ..word import Word
from . import replay
from .alternatives.conclusion import conclude, failed
from .case import CLOCK, Case, Verdict, disturbed
from .orders import by_order, traced
from .replay.windows import NOT_SERVED, WIDE, Served
from .rules.draws import drawn, hits_needed, missing_pair_probability, only
from .rules.exact import one_by_one
from .rules.facts import first_fact
from .rules.keys import by_key, first_wrong_key, sticky_requests, with_source_of_keys
from .rules.loads import by_load, overlapping
from .rules.turns import counted

MOST_LEFT = 0.005  # of random_two's picks that find no second server

__all__ = ["Verdict", "hits_needed", "judge"]


def judge(
    upstream: Upstream,
    hits: Sequence[Hit],
    *,
    sequential: bool,
    addresses: Mapping[str, tuple[str, ...]] | None = None,
    fresh: bool = True,
    clock: float = 0.0,
    since: float = -math.inf,
    order: Sequence[Step] | None = None,
    alone: bool = False,
    returning: int = 0,
    served: Served = NOT_SERVED,
    keys: Mapping[str, bytes] | None = None,
) -> Verdict:
    """Judge whether nginx's hits, with server names for addresses, are those that it must make.

    `sequential` says that no request began before the previous one ended; `addresses` has the
    addresses of each server's name; `fresh` says that nginx was reloaded just before. Only requests
    from the moment `since` on are judged; the log also has those before it. `order` is nginx's own
    order of picks and releases, if there is a trace. `returning` is the number of requests from
    clients that return the cookies of earlier responses. `served` has the times of each request at
    its backend, by the backend's journal, and `clock` the longest lag of nginx's clock by the
    journals, in ms. `keys` has the hash key of each request as it was sent, by its id, where the
    client computed it; None if the hits have computed keys, not those that nginx logged. The oracle
    gets requests, times and faults, never the answering server. With `alone`, or if the log does
    not begin with a fresh nginx, only the claim is judged; else also its alternatives.
    """
    claim = as_if_none_in_flight(upstream) if sequential else upstream
    case = case_of(
        Case(
            claim,
            (),
            sequential,
            addresses or {},
            fresh,
            clock,
            since,
            order=order,
            alone=alone or not fresh or since > -math.inf or several_addresses(addresses or {}),
            returning=returning,
            served=served,
            keys=keys,
        ),
        hits,
    )
    return with_source_of_keys(case, judge_case(case))


def as_if_none_in_flight(upstream: Upstream) -> Upstream:
    """The upstream without least_time's `inflight`, which counts only requests in flight."""
    return replace(upstream, measure=upstream.measure.removesuffix(" inflight"))


def judge_case(case: Case) -> Verdict:
    """Check for hard facts against the claim, then judge the picks by its method."""
    upstream, hits = case.upstream, case.hits
    if not hits:
        return case.says(Word.UNSURE, "no hits", f"lab run {case.label}")
    if unknown_servers := replay.unknown(upstream, hits):
        name, number = next(iter(unknown_servers.items()))
        return case.says(
            Word.FAIL, f'hit {number:,} went to "{name}", which is not in the upstream'
        )
    if wrong := first_wrong_key(case):
        return case.says(Word.FAIL, wrong)
    if fact := first_fact(case):
        return failed(case, fact.text(case), fact.number)
    if not case.sequential and all(replay.seen(upstream, hit).server is None for hit in hits):
        return case.says(
            Word.UNSURE, "every request found no live upstreams", f"lab run {case.label}"
        )
    if own_state(case) and not traced(case):
        return by_worker(case) if case.alone or not case.sequential else by_order(case)
    claims = list(replay.orders(upstream))
    for claim in claims[1:]:  # DNS decides their order
        verdict = judge_one(replace(case, upstream=claim), named=False)
        if verdict.word == Word.PASS:
            return verdict
    return judge_one(replace(case, upstream=claims[0]))


def several_addresses(addresses: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a server's name has several addresses, which the alternatives do not distinguish."""
    return any(len(peers) > 1 for peers in addresses.values())


def case_of(case: Case, hits: Sequence[Hit]) -> Case:
    """The case with its hits: those to judge, and those that were in flight at its beginning."""
    near = CLOCK + max(case.clock, WIDE) / 1000
    judged = tuple(hit for hit in hits if replay.start(hit) >= case.since)
    earlier = (hit for hit in hits if replay.start(hit) < case.since <= hit.msec + near)
    return replace(
        case,
        hits=judged,
        by_id={hit.request_id: hit for hit in judged} if case.order is not None else {},
        earlier=tuple(earlier),
        disturbed=disturbed(case.upstream, judged, sequential=case.sequential),
        workers=max(1, len({hit.pid for hit in judged})),
    )


def judge_one(case: Case, *, named: bool = True) -> Verdict:
    """Judge a log against servers in one order; with `named` a FAIL names the best alternative."""
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
    if (left := missing_pair_probability(upstream, case.addresses)) > MOST_LEFT:
        why = (
            f"two draws find no second server in {left:.0%} of the picks, and the log does not show"
            " the turns that decide these"
        )
        return case.says(Word.UNSURE, why, f"lab run {case.label} --evidence trace")
    if case.sequential and not draws:
        return one_by_one(case)
    if upstream.sticky:
        return sticky_requests(case)
    backups = peers.backup.peers if peers.backup else ()
    if max(len(peers.peers), len(backups)) < 2 or upstream.record.by_turns:
        return counted(case)
    if upstream.record.by_request:
        return by_key(case)
    return by_load(case) if case.alone else overlapping(case)


def own_state(case: Case) -> bool:
    """Whether workers pick independently and the log has several workers."""
    stateless = case.upstream.record.stateless and not case.upstream.sticky
    return not case.upstream.zone and not stateless and case.workers > 1


def by_worker(case: Case) -> Verdict:
    """Judge each worker's hits separately: without a zone workers share neither turns nor loads."""
    zoned = replace(case, upstream=replace(case.upstream, zone=True), order=None, returning=0)
    hits, pids = (*case.earlier, *case.hits), sorted({hit.pid for hit in case.hits})
    verdicts = [
        judge_case(case_of(zoned, [without_worker(hit) for hit in hits if hit.pid == pid]))
        for pid in pids
    ]
    for word in (Word.FAIL, Word.UNSURE):
        for pid, verdict in zip(pids, verdicts, strict=True):
            if verdict.word == word:
                why = f"worker {pid}, which has no zone to share: {verdict.why}"
                return case.says(word, why, verdict.command, verdict.decided)
    how = f"each of {len(pids)} workers passes by itself, without a shared zone"
    return case.says(Word.PASS, f"{how}; worker {pids[0]}: {verdicts[0].why}")


def without_worker(hit: Hit) -> Hit:
    """A hit without its worker, so that a verdict does not mention other workers."""
    return structs.replace(hit, pid=0)
