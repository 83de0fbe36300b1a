"""`lab compare`: the scorecard of methods in scenarios."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ..accounts.scorecard import Run, Scorecard
from ..errors import UsageError
from ..experiment import comparing
from ..report import scores
from ..signals import INTERRUPTIONS
from .compiling import announce_compiling
from .here import this_lab
from .options import Duration, Json, names_in
from .terminal import exit_unless, note, say, show

METHODS = "round_robin,least_conn,least_time"
REPEATS = 3


def compare(
    scenarios: Annotated[
        list[str] | None, typer.Argument(help="Names from `lab scenarios`, or paths of YAML files.")
    ] = None,
    methods: Annotated[str, typer.Option(help="Methods, separated by commas.")] = METHODS,
    repeats: Annotated[
        int, typer.Option(help="Runs per scenario and method, each with a different seed.")
    ] = REPEATS,
    duration: Duration = 0.0,
    minutes: Annotated[
        float,
        typer.Option(
            help="Total minutes for all live runs; sets the duration of each.", show_default=False
        ),
    ] = 0.0,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulate every run; needs no Docker.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Resume the comparison in this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare methods in scenarios: best figures and trade-offs.

    Each repeat uses a different seed, the same for every method; the runs are in random order. A
    method is best only if the 95 % interval of the paired difference excludes zero.
    """
    if bool(scenarios) == bool(resume):
        raise UsageError(
            "give either scenarios or --resume",
            "lab compare heavy_tail mixed_fleet, or --resume FOLDER",
        )
    if minutes and (duration or simulate or resume):
        raise UsageError(
            "--minutes is only for new live runs without --duration", "leave one option out"
        )
    announce_compiling()  # a live comparison simulates too, to estimate its time
    if resume:
        if simulate or duration or repeats != REPEATS or methods != METHODS:
            raise UsageError(
                f"a resumed comparison has the options in {resume / comparing.PLAN}",
                f"lab compare --resume {resume}",
            )
        plan = comparing.resumed(resume)
    else:
        names = names_in(methods)
        plan = comparing.Plan(tuple(scenarios or ()), names, repeats, duration, simulate)
        plan = comparing.begin(plan, minutes)
    card = carry_out(plan)
    if as_json:
        show({**card.as_dict(), "folder": str(plan.folder)})
    else:
        say(scores.scorecard(card))
        say(f"\nruns: {plan.folder}")
    exit_unless(all(run.holds for run in card.runs))


def carry_out(plan: comparing.Plan) -> Scorecard:
    """Do the remaining runs of a comparison, and return the scorecard of all its runs.

    An interruption prints on stderr how to resume.
    """
    if not plan.simulated:
        announce_time(plan)
    lab = None if plan.simulated else this_lab()
    try:
        return comparing.compare(plan, lab, announce)
    except INTERRUPTIONS:
        count, total = len(comparing.finished(plan)), len(plan.cells())
        note(
            f"stopped after {count} of {total} runs; to resume: lab compare --resume {plan.folder}"
        )
        raise


def announce_time(plan: comparing.Plan) -> None:
    """Print on stderr how many runs remain, and an estimate of their time."""
    total = len(plan.cells())
    left = total - len(comparing.finished(plan))
    expected = comparing.estimate(plan) * left / total / 60
    duration = f" of {plan.duration:g} s" if plan.duration else ""
    note(f"{left} live runs{duration}, about {math.ceil(expected)} minutes")


def announce(run: Run, count: int, total: int) -> None:
    """Print a finished run on stderr; simulated runs are fast and print nothing."""
    if run.folder:
        note(f"{count}/{total} {run.scenario} by {run.method}, seed {run.seed}: {run.folder}")
