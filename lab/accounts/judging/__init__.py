"""Judge a run folder, whichever command wrote it. Needs no Docker."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import UsageError
from ...evidence import folder
from ...evidence.folder import Evidence, Kind
from ..outcome import AnyOutcome
from ..scorecard import RUNS, read_runs
from .load import judge_load
from .run import judge_run, judge_verify
from .soak import judge_soak

_MOST_NAMED = 5  # run folders in one error


def judge(place: Path) -> AnyOutcome:
    """Recompute the result of a run folder, whichever command wrote it.

    A UsageError names what is missing or wrong in the folder. For a folder of several runs it names
    those that can be judged.
    """
    if not (place / folder.RUN).exists():
        _refuse_several(place)
    evidence = folder.read(place)
    return _JUDGES[evidence.kind](place, evidence)


def _refuse_several(place: Path) -> None:
    """Raise UsageError for the folder of a comparison, and for a folder of run folders."""
    if (place / RUNS).exists():
        runs = read_runs(place)
        what = f"{place} is a comparison of {len(runs)} finished runs, not a run folder"
        judged = [run.folder for run in runs if run.folder]
        otherwise = f"lab report {place}; its runs are simulated and have no logs to judge"
    else:
        listed = folder.list_runs(place)
        what = f"{place} is not a run folder; it contains {len(listed)}"
        judged = [str(run.path) for run in listed if run.kind != "simulated"]
        otherwise = "all of them are simulated and have no logs to judge"
        if not listed:
            return
    more = len(judged) - _MOST_NAMED
    others = "".join(f", or {path}" for path in judged[1:_MOST_NAMED])
    others += f", or one of {more} more" if more > 0 else ""
    raise UsageError(what, f"lab judge {judged[0]}{others}" if judged else otherwise)


_JUDGES: Mapping[Kind, Callable[[Path, Evidence], AnyOutcome]] = {
    "run": judge_run,
    "load": judge_load,
    "soak": judge_soak,
    "verify": judge_verify,
}
