"""The run's own requests, apart from those of other clients: ids, keys, log lines, fates."""

from collections.abc import Iterable, Sequence

from ...evidence.folder import Evidence
from ...evidence.journal import Entry
from ...evidence.timeline import Timeline
from ...nginxconf.model import Upstream
from .. import join
from ..fates import Call, Ledger, account, of_record
from ..faults import faults_of, rules_of


def known_ids(evidence: Evidence) -> frozenset[str]:
    """The ids of the run's own requests."""
    return frozenset(record.id for record in evidence.records)


def keys_as_sent(evidence: Evidence) -> dict[str, bytes]:
    """The hash key of each request as the client sent it, by the request's id, where it is known.

    Only until the first change of the upstream, whose key may be another.
    """
    if evidence.claims:
        return {}
    return {
        record.id: record.key.encode("latin-1", "replace")
        for record in evidence.records
        if record.key is not None
    }


def calls_of(evidence: Evidence) -> list[Call]:
    """The calls of the records, without those held back because too many requests were open."""
    return [of_record(record) for record in evidence.records if record.error != "unsent"]


def logged_lines(evidence: Evidence) -> tuple[join.Line, ...]:
    """The lines of nginx's log, also those of foreign requests."""
    log = evidence.log()
    return (*log.hits, *log.unproxied)


def own_lines(
    evidence: Evidence, lines: Iterable[join.Line], entries: Iterable[Entry]
) -> tuple[list[join.Line], list[Entry]]:
    """The lines and entries of the run's own requests."""
    known = known_ids(evidence)
    return (
        [line for line in lines if line.request_id in known],
        [entry for entry in entries if entry.id in known],
    )


def ledger_of(
    evidence: Evidence,
    timeline: Timeline,
    lines: Sequence[join.Line],
    entries: Sequence[Entry],
    claim: Upstream,
) -> Ledger:
    """The fates of the run's own requests; foreign ones count towards a server's max_conns."""
    known, rules = known_ids(evidence), rules_of(claim, timeline)
    foreign = (line for line in lines if line.request_id not in known)
    own = own_lines(evidence, lines, entries)
    calls = calls_of(evidence)
    return account(calls, *own, faults_of(timeline), rules, timeline.began, foreign)
