"""Judge the folder of a `lab soak`: its fates, and the recovery after each step."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...evidence import folder
from ...evidence.folder import Evidence
from ...evidence.timeline import FIRST_CLAIM, Window
from ...nginxconf import upstream
from ...verdict import Verdict
from ...word import Word
from ..fates import named_by_tenure
from ..outcome import Recovery, Soaked
from .notes import SoakNotes, read_notes
from .own_requests import ledger_of, logged_lines
from .windows import judge_windows, timeline_of


def judge_soak(place: Path, evidence: Evidence | None = None) -> Soaked:
    """The fates and recoveries of a `lab soak` from its folder."""
    evidence = evidence or folder.read(place)
    timeline = timeline_of(place, evidence)
    entries = evidence.entries()
    named = tuple(named_by_tenure(logged_lines(evidence), timeline.tenures))
    claim = upstream.read(place / FIRST_CLAIM)
    notes = read_notes(SoakNotes, evidence.notes, place / folder.RUN)
    return Soaked(
        folder=place,
        seed=notes.seed,
        seconds=notes.seconds,
        steps=notes.steps,
        memory=notes.memory,
        ledger=ledger_of(evidence, timeline, named, entries, claim),
        recoveries=tuple(recoveries_of(judge_windows(place, evidence, named, entries))),
        began=timeline.began,
        incidents=tuple(timeline.incidents),
    )


def recoveries_of(judged: Iterable[tuple[Window, Verdict]]) -> Iterator[Recovery]:
    """One recovery for each step; a later window counts if all before it were UNSURE."""
    first, recovery = Window(0.0), None
    for window, result in judged:
        if not window.again:
            if recovery:
                yield recovery
            first, recovery = window, Recovery(window.after, result)
        elif recovery and recovery.verdict.word == Word.UNSURE:
            recovery = Recovery(window.after, result, window.start - first.start)
    if recovery:
        yield recovery
