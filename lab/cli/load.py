"""`lab load`, `scenarios`: LLM workloads."""

from typing import Annotated

import typer

from ..errors import UsageError
from ..experiment import load as experiment
from ..report import tables
from ..traffic import scenario_choice
from .here import this_lab
from .options import (
    Duration,
    Json,
    Key,
    Limit,
    Measure,
    ScenarioName,
    Speed,
    TraceFile,
    Weights,
)
from .terminal import exit_unless, progress, say, show


def scenarios(as_json: Json = False) -> None:
    """List the scenarios that come with the lab."""
    built_in = [scenario_choice.load(name) for name in scenario_choice.names()]
    if as_json:
        show([{"name": scenario.name, "about": scenario.about} for scenario in built_in])
    else:
        say(tables.scenarios(built_in))


def load(
    scenario: ScenarioName = "",
    method: Annotated[str, typer.Option(help="Method; default: the current one.")] = "",
    weights: Weights = "",
    key: Key = "",
    measure: Measure = "",
    duration: Duration = 0.0,
    trace: TraceFile = "",
    speed: Speed = 1.0,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Send an LLM workload; print TTFT, ITL, goodput and fairness."""
    lab = this_lab()
    workload = scenario_choice.requested(scenario, duration, trace, speed, limit)
    if not method and (weights or key or measure):
        raise UsageError("--weights, --key and --measure need --method", "--method round_robin")
    choice = experiment.choice_without_backends(method, weights, key, measure) if method else None
    with progress(workload.name) as advance:
        loaded = experiment.load(lab, workload, choice, advance)
    show(loaded.as_dict()) if as_json else say(tables.loaded(loaded))
    exit_unless(loaded.holds)
