"""Judge the folder of a `lab run`, or of one upstream of a `lab verify`."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ... import verdict
from ...evidence import access_log, folder, journal, trace
from ...evidence.access_log import Hit
from ...evidence.folder import Evidence
from ...evidence.journal import Entry
from ...evidence.split import Split, split
from ...evidence.timeline import FIRST_CLAIM
from ...evidence.trace import Step
from ...nginxconf import upstream
from ...verdict import Verdict
from ...word import Word
from ..foreign import judge_own_requests, own_ids, picks_are_independent
from ..outcome import Counts, Outcome, short, with_method
from .notes import RunNotes, VerifyNotes, read_notes
from .own_requests import keys_as_sent


def judge_run(place: Path, evidence: Evidence | None = None) -> Outcome:
    """The outcome of a `lab run` from its folder."""
    evidence = evidence or folder.read(place)
    log = evidence.log()
    entries = evidence.entries()
    hits = tuple(access_log.named(log.hits, evidence.addresses))
    claim = upstream.read(place / FIRST_CLAIM)
    notes = read_notes(RunNotes, evidence.notes, place / folder.RUN)

    def judge_hits(judged: Sequence[Hit], sequential: bool) -> Verdict:
        return verdict.judge(
            claim,
            judged,
            sequential=sequential,
            addresses={name: (address,) for address, name in evidence.addresses.items()},
            clock=math.ceil(folder.clock_lag(log.hits, entries)),
            order=picks_in_order(evidence, judged),
            returning=notes.returning,
            served=journal.served(entries),
            keys=keys_as_sent(evidence),
        )

    ids = own_ids(evidence, hits)
    result = judge_own_requests(claim, hits, ids, sequential=evidence.sequential, judge=judge_hits)
    changed = _restarted(evidence)
    if result.word == Word.FAIL and changed and not picks_are_independent(claim):
        result = replace(result, word=Word.UNSURE, why=f"{changed}: {result.why}")
    counts = _counts(evidence, hits, entries, ids)
    if result.word == Word.PASS and not counts.agree:
        result = replace(
            result, word=Word.UNSURE, why=f"the three counts differ; apart from that: {result.why}"
        )
    own_hits = [hit for hit in hits if hit.request_id in ids]
    return Outcome(
        place,
        evidence.method,
        evidence.traffic,
        short(split(own_hits)),
        counts,
        with_method(result, evidence.method),
    )


def _restarted(evidence: Evidence) -> str:
    """What made nginx forget its turns and loads during a run; "" if nothing did."""
    incidents = evidence.timeline.incidents if evidence.timeline else ()
    return next((f"nginx {one.what}" for one in incidents if one.service == "nginx"), "")


def _counts(
    evidence: Evidence, hits: Sequence[Hit], entries: Sequence[Entry], sent_ids: frozenset[str]
) -> Counts:
    own_hits = [hit for hit in hits if hit.request_id in sent_ids]
    logged = {hit.request_id for hit in own_hits}
    served = Counter(entry.backend for entry in entries if entry.id in logged)
    return Counts(
        short(split(own_hits)), Split.of(served), evidence.sent, foreign=len(hits) - len(own_hits)
    )


def judge_verify(place: Path, evidence: Evidence) -> Outcome:
    """The outcome for one upstream of a `lab verify` from its folder."""
    notes = read_notes(VerifyNotes, evidence.notes, place / folder.RUN)
    hits = evidence.log().hits
    entries = evidence.entries()
    addresses: dict[str, tuple[str, ...]] = {}
    for address, name in evidence.addresses.items():
        addresses[name] = (*addresses.get(name, ()), address)
    result = verdict.judge(
        upstream.read(place / FIRST_CLAIM, notes.upstream),
        hits,
        sequential=evidence.sequential,
        addresses=addresses,
        fresh=notes.fresh,
        order=picks_in_order(evidence, hits),
    )
    served = Split.of(Counter(entry.backend for entry in entries))
    counts = Counts(short(split(hits)), short(served), evidence.sent)
    return Outcome(place, evidence.method, evidence.traffic, short(split(hits)), counts, result)


def picks_in_order(evidence: Evidence, hits: Sequence[Hit]) -> Sequence[Step] | None:
    """nginx's own order of picks for these hits; None without a trace of all of them."""
    if not evidence.trace:
        return None
    order = trace.order(evidence.trace.splitlines(), hits)
    return None if order.gap else order.steps
