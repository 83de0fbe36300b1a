"""`lab simulate`: a scenario without Docker, at the scale of a fleet."""

from dataclasses import replace
from typing import Annotated

import typer

from ..errors import UsageError
from ..experiment import simulating
from ..report import scores
from ..traffic import scenario as known
from .options import Json, Key, Weights
from .terminal import say, show, track


def simulate(
    scenario: Annotated[
        str, typer.Argument(help="A name from `lab scenarios`, or the path of a YAML file.")
    ],
    method: Annotated[
        str, typer.Option(help="Method, or several, separated by commas.")
    ] = "round_robin,least_conn",
    backends: Annotated[
        int | None,
        typer.Option(help="Backends; the load grows with them. Default: the scenario's."),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests, instead of the scenario's duration.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the scenario's.")] = None,
    weights: Weights = "",
    key: Key = "",
    as_json: Json = False,
) -> None:
    """Simulate a scenario event by event; print the same figures as `lab load`. Needs no Docker."""
    wanted = known.load(scenario)
    if requests is not None and not 1 <= requests <= simulating.MOST_REQUESTS:
        raise UsageError(
            f"--requests {requests}", f"a number from 1 to {simulating.MOST_REQUESTS:,}"
        )
    if seed is not None:
        wanted = replace(wanted, seed=seed)
    names = [name.strip() for name in method.split(",")]
    runs = []
    for name in names:
        with track(f"{wanted.name} by {name}") as advance:
            run = simulating.simulated(wanted, name, backends, requests, weights, key, advance)
        runs.append(run)
        if not as_json:
            say(scores.simulated(run))
    if as_json:
        show([run.as_dict() for run in runs] if len(runs) > 1 else runs[0].as_dict())
