"""Judge the folder of a `lab load`: its figures, fates, and picks before the first event."""

import json
from dataclasses import replace
from pathlib import Path

from ...evidence import folder
from ...evidence.folder import Evidence
from ...evidence.timeline import FIRST_CLAIM
from ...nginxconf import upstream
from .. import figures, join
from ..fates import explain_lost_lines, named_by_tenure
from ..faults import faults_of
from ..outcome import Loaded, with_method
from .notes import LoadNotes, ScenarioNotes, read_notes
from .own_requests import calls_of, ledger_of, logged_lines, own_lines
from .windows import judge_windows, timeline_of


def judge_load(place: Path, evidence: Evidence) -> Loaded:
    """The figures, fates and verdict of a `lab load` from its folder."""
    timeline = timeline_of(place, evidence)
    scenario = read_notes(ScenarioNotes, evidence.scenario or {}, place / folder.SCENARIO)
    notes = read_notes(LoadNotes, evidence.notes, place / folder.RUN)
    lines, entries = logged_lines(evidence), evidence.entries()
    joined = join.join(evidence.records, *own_lines(evidence, lines, entries))
    findings = tuple(explain_lost_lines(joined.findings, calls_of(evidence), faults_of(timeline)))
    claim = upstream.read(place / FIRST_CLAIM)
    named = tuple(named_by_tenure(lines, timeline.tenures))
    names = sorted({tenure.backend for tenure in timeline.tenures}, key=lambda n: (len(n), n))
    return Loaded(
        folder=place,
        scenario=evidence.traffic,
        method=evidence.method,
        figures=figures.figures(
            replace(joined, findings=findings),
            scenario.targets,
            evidence.method,
            names,
            _offered(scenario, evidence),
        ),
        findings=findings,
        timeline=tuple(timeline.done),
        ledger=ledger_of(evidence, timeline, named, entries, claim),
        verdict=with_method(judge_windows(place, evidence, named, entries)[0][1], evidence.method),
        began=timeline.began,
        changed=notes.changed,
        skipped=scenario.timeline[len(timeline.done) :],
        incidents=tuple(timeline.incidents),
        targets=scenario.targets,
    )


def _offered(scenario: ScenarioNotes, evidence: Evidence) -> float | None:
    """How many seconds load was offered; None if the duration did not end it."""
    complete = scenario.requests is not None and len(evidence.records) >= scenario.requests
    return None if complete or evidence.interrupted else scenario.duration


def write_figures(loaded: Loaded) -> None:
    """Write the figures beside the evidence from which they were computed."""
    text = json.dumps(loaded.as_dict(), indent=1, default=str)
    (loaded.folder / "figures.json").write_text(text)
