"""Judge the time windows of a load or a soak, each by the claim that nginx had then."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

from ... import verdict
from ...errors import UsageError
from ...evidence import access_log, folder, journal
from ...evidence.access_log import Hit
from ...evidence.folder import Evidence
from ...evidence.journal import Entry
from ...evidence.timeline import FIRST_CLAIM, Timeline, Window
from ...nginxconf import upstream
from ...nginxconf.model import Upstream
from ...verdict import Verdict
from ...verdict.replay import start
from .. import join
from ..fates import named_by_tenure
from ..foreign import at_lab_door, judge_own_requests
from .own_requests import keys_as_sent, known_ids

LONGEST = 600.0  # seconds that a request may have been open when a window begins


def timeline_of(place: Path, evidence: Evidence) -> Timeline:
    """The timeline of a load or a soak; UsageError if the folder has none that can be judged."""
    if evidence.timeline is None or not (evidence.timeline.windows or evidence.interrupted):
        raise UsageError(f"{place}/{folder.TIMELINE} is missing, or names no window", "lab load")
    return evidence.timeline


def judge_windows(
    place: Path,
    evidence: Evidence,
    lines: Sequence[join.Line],
    entries: Sequence[Entry],
) -> list[tuple[Window, Verdict]]:
    """The verdict on each window of the timeline; `lines` name the backends, not addresses.

    `lines` and `entries` include those of foreign requests, which take turns like any other.
    """
    timeline = timeline_of(place, evidence)
    hits = sorted((line for line in lines if isinstance(line, Hit)), key=start)
    served = journal.served(entries)
    known, keys = known_ids(evidence), keys_as_sent(evidence)
    if evidence.interrupted:  # the requests that were cut off have no records
        known |= at_lab_door(hits)

    def judge_window(window: Window) -> Verdict:
        claim = _claim(place, evidence, window)
        return _judge_window(claim, window, hits, known, entries, timeline, served, keys)

    return [(window, judge_window(window)) for window in timeline.windows]


def _claim(place: Path, evidence: Evidence, window: Window) -> Upstream:
    if window.claim not in (FIRST_CLAIM, *evidence.claims):
        raise UsageError(
            f'{place}/{folder.TIMELINE} names the claim "{window.claim}", which is missing',
            "lab runs lists the run folders; judge another one",
        )
    return upstream.read(place / window.claim)


def _judge_window(
    claim: Upstream,
    window: Window,
    hits: Sequence[Hit],
    known: frozenset[str],
    entries: Sequence[Entry],
    timeline: Timeline,
    served: Mapping[str, tuple[float, float]],
    keys: Mapping[str, bytes],
) -> Verdict:
    """Judge the requests that began within a window; those already open count as load.

    `hits` are in the order of their start times, `served` has their times at the backends. Hits
    whose ids are not `known` are foreign requests.
    """
    names = {server.name.rpartition(":")[0]: server.name for server in claim.servers}
    addresses: dict[str, tuple[str, ...]] = {}
    for tenure in timeline.tenures:
        addresses.setdefault(names.get(tenure.backend, tenure.backend), (tenure.address,))
    first = bisect_left(hits, window.start - LONGEST, key=start)
    last = bisect_left(hits, math.inf if window.end is None else window.end, key=start)
    near = [hit for hit in hits[first:last] if hit.msec >= window.start - 1]
    begun = [hit for hit in near if start(hit) >= window.start]  # no fault delayed them

    def judge_hits(judged: Sequence[Hit], sequential: bool) -> Verdict:
        return verdict.judge(
            claim,
            judged,
            sequential=sequential,
            addresses=addresses,
            fresh=window.fresh,
            clock=math.ceil(folder.clock_lag(begun, entries)),
            since=-math.inf if window.fresh else window.start,
            served=served,
            keys=keys,
        )

    judged = tuple(access_log.named(near, names))
    return judge_own_requests(claim, judged, known, sequential=False, judge=judge_hits)


def judge_so_far(
    claim: Upstream, window: Window, access: bytes, journals: bytes, timeline: Timeline
) -> Verdict:
    """The verdict on a window while the run goes on, from the logs since its start."""
    lines = access_log.read(access.splitlines(keepends=True)).hits
    entries = journal.read(journals.splitlines()).entries
    named = named_by_tenure(lines, timeline.tenures)
    hits = sorted((line for line in named if isinstance(line, Hit)), key=start)
    served = journal.served(entries)
    known = at_lab_door(hits)
    return _judge_window(claim, window, hits, known, entries, timeline, served, {})
