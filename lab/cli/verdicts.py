"""Print verdicts, write them as JUnit, and exit by them."""

from pathlib import Path

from ..accounts.outcome import AnyOutcome
from ..report import tables
from ..report.junit import write_junit
from .terminal import exit_unless, say, show


def conclude(outcome: AnyOutcome, as_json: bool, junit: Path | None) -> None:
    """Print an outcome, write it as JUnit, exit with 1 unless its claim holds."""
    if junit:
        write_junit([outcome.case()], junit)
    show(outcome.as_dict()) if as_json else say(tables.outcome(outcome))
    exit_unless(outcome.holds)
