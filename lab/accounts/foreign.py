"""Count foreign requests, sent by other clients during a run, and judge the run despite them.

Foreign requests take turns and are in flight like any other. So a method whose picks depend on
earlier requests is judged with them included; any other method is judged by the run's own requests
alone. What a foreign request did outside the log (before the run, or still open at its end) is
unknown, so a verdict that includes foreign requests is never FAIL: it is PASS or UNSURE.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..evidence.access_log import Hit
from ..evidence.folder import Evidence
from ..nginxconf.model import Upstream
from ..verdict import Verdict
from ..word import Word

LAB_DOOR = 8081  # the port, inside nginx's container, that only the lab's own clients use
Judge = Callable[[Sequence[Hit], bool], Verdict]


def own_ids(evidence: Evidence, hits: Sequence[Hit]) -> frozenset[str]:
    """The ids of the run's own requests: the client's, else those of ab at the lab door.

    Logs of earlier versions do not name the door; then every request counts as the run's own.
    """
    if evidence.records:
        return frozenset(record.id for record in evidence.records)
    return at_lab_door(hits)


def at_lab_door(hits: Sequence[Hit]) -> frozenset[str]:
    """The ids of the requests at the lab door, or in a log that does not name the door."""
    return frozenset(hit.request_id for hit in hits if hit.server_port in (LAB_DOOR, 0))


def judge_own_requests(
    claim: Upstream, hits: Sequence[Hit], own_ids: frozenset[str], *, sequential: bool, judge: Judge
) -> Verdict:
    """The verdict on the run's own requests; `judge` takes hits, and whether none overlapped."""
    own_hits = [hit for hit in hits if hit.request_id in own_ids]
    foreign = len(hits) - len(own_hits)
    if not foreign:
        return judge(hits, sequential)
    if picks_are_independent(claim) and not any(failed(hit) for hit in hits):
        return judge(own_hits, sequential)
    verdict = judge(hits, False)
    if verdict.word == Word.PASS:
        return replace(verdict, why=f"{verdict.why}; {in_words(foreign)} included")
    why = f"{in_words(foreign)} passed through nginx: {verdict.why}"
    return replace(verdict, word=Word.UNSURE, why=why)


def in_words(foreign: int) -> str:
    """The number of foreign requests, as a verdict prints it."""
    return f"{foreign:,} foreign request{'s' if foreign > 1 else ''}"


def picks_are_independent(claim: Upstream) -> bool:
    """Whether no pick depends on earlier picks."""
    limited = any(server.max_conns for server in claim.servers)
    return claim.record.stateless and claim.sticky is None and not limited


def failed(hit: Hit) -> bool:
    """Whether an attempt failed, which may ban its server for other requests."""
    return len(hit.upstream_addr) > 1 or hit.status in (502, 504)
