"""`lab simulate`: a scenario without Docker, at the scale of a fleet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from ..errors import UsageError
from ..experiment import simulating, validating
from ..report import scores
from ..simulate.simulation import Simulated, Stopped
from ..traffic import scenario_choice
from .compiling import announce_compiling
from .here import this_lab
from .options import (
    Duration,
    Json,
    Key,
    Limit,
    ScenarioName,
    Speed,
    TraceFile,
    Weights,
    names_in,
)
from .terminal import note, say, show, track


def simulate(
    scenario: ScenarioName = "",
    method: Annotated[
        str,
        typer.Option(
            help="Method, or several, separated by commas. Default: round_robin,least_conn."
        ),
    ] = "",
    backends: Annotated[
        int | None,
        typer.Option(
            help="Number of backends; the load grows in proportion. Default: the scenario's."
        ),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Number of requests; replaces the scenario's duration.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; default: the scenario's.")] = None,
    weights: Weights = "",
    key: Key = "",
    trace: TraceFile = "",
    speed: Speed = 1.0,
    limit: Limit = None,
    validate: Annotated[
        bool,
        typer.Option("--validate", help="Compare live runs with simulations."),
    ] = False,
    repeats: Annotated[
        int, typer.Option(min=1, help="Live runs per scenario and method of --validate.")
    ] = validating.REPEATS,
    duration: Duration = 0.0,
    as_json: Json = False,
) -> None:
    """Simulate a scenario; print the figures of `lab load`.

    Needs no Docker.
    """
    if validate:
        given = {"backends": backends, "requests": requests, "seed": seed, "limit": limit}
        speedup = None if speed == 1.0 else speed
        _refuse_unused({**given, "weights": weights, "key": key, "trace": trace, "speed": speedup})
        _validate(scenario, method, duration, repeats, as_json=as_json)
        return
    workload = scenario_choice.requested(scenario, duration, trace, speed, limit)
    if seed is not None:
        workload = replace(workload, seed=scenario_choice.seed_of(seed))
    names = names_in(method or "round_robin,least_conn")
    announce_compiling()
    runs = simulating.by_each(workload, names, backends, requests, weights, key, track)
    _print_each(runs, names, as_json=as_json)


def _print_each(runs: Iterable[Simulated], names: Sequence[str], *, as_json: bool) -> None:
    """Print each run when it ends, or all as JSON; if one is stopped, print how to go on."""
    ended: list[Simulated] = []
    try:
        for run in runs:
            ended.append(run)
            if not as_json:
                say(scores.simulated(run))
    except Stopped as stopped:
        _print_how_to_resume(stopped.simulated, names[len(ended) :])
        raise
    if as_json:
        show([run.as_dict() for run in ended] if len(ended) > 1 else ended[0].as_dict())


def _refuse_unused(options: Mapping[str, object]) -> None:
    """Refuse the options that --validate would ignore."""
    if unused := [name for name, value in options.items() if value not in (None, "")]:
        raise UsageError(
            f"--{unused[0]} has no effect with --validate, which runs scenarios live as they are",
            "lab simulate --validate [SCENARIO] [--method …] [--duration …] [--repeats …]",
        )


def _print_how_to_resume(kept: Simulated, methods: Sequence[str]) -> None:
    """Print on stderr what an interrupted simulation has saved, and how to run the rest."""
    answered = kept.figures.overall.requests
    note(f"stopped: the figures of {answered:,} answered requests are in {kept.folder}")
    note(f"to simulate the rest: the same command with --method {','.join(methods)}")


def _validate(scenario: str, method: str, duration: float, repeats: int, *, as_json: bool) -> None:
    """Run scenarios by methods live and simulated, and print both figures."""
    scenarios = names_in(scenario) if scenario else validating.SCENARIOS
    methods = names_in(method) if method else validating.METHODS
    seconds = duration or validating.SECONDS
    announce_compiling()
    runs, expected = validating.estimate(scenarios, methods, seconds, repeats)
    note(f"{runs} live runs, about {expected / 60:.0f} minutes")
    result = validating.validate(
        this_lab(),
        scenarios,
        methods,
        seconds,
        repeats,
        lambda cells: note(
            ", ".join(f"{c.scenario} {c.method} {c.percentile} {c.difference:+.0%}" for c in cells)
        ),
    )
    show(result.as_dict()) if as_json else say(scores.validation(result))
