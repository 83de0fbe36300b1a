"""Simulate a scenario and write its run folder, even if the simulation is interrupted."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..nginxconf import methods
from ..simulate import simulation
from ..simulate.simulation import Simulated, Stopped
from .collect import fresh_folder

if TYPE_CHECKING:
    from ..traffic.scenario import Scenario

MOST_REQUESTS = 20_000_000


def by_each(
    scenario: "Scenario",
    names: Sequence[str],
    backends: int | None,
    requests: int | None,
    weights: str,
    key: str,
    track: Callable[[str], AbstractContextManager[Callable[[int], None]]],
) -> Iterator[Simulated]:
    """Simulate a scenario by each of the methods `names`, in order; write each run folder.

    `track` shows the progress of a run with this title; its value takes the requests sent so far.
    Ctrl-C and SIGTERM raise Stopped for the run that they interrupt.
    """
    if requests is not None and not 1 <= requests <= MOST_REQUESTS:
        raise UsageError(
            f"--requests {requests} is out of range", f"a number from 1 to {MOST_REQUESTS:,}"
        )
    names = [methods.method(name).name for name in names]  # refuses an unknown one before any run
    methods.check_key(key, names)
    for name in names:
        with track(f"{scenario.name} by {name}") as on_sent:
            run = simulated(scenario, name, backends, requests, weights, key, on_sent)
        yield run


def simulated(
    scenario: "Scenario",
    method: str,
    backends: int | None = None,
    requests: int | None = None,
    weights: str = "",
    key: str = "",
    on_sent: Callable[[int], None] | None = None,
) -> Simulated:
    """Simulate a scenario by one method and write its run folder.

    Ctrl-C and SIGTERM raise Stopped after the folder was written, with the requests answered
    until then.
    """
    chosen = methods.method(method).name
    if backends or requests:
        size = backends or len(simulation.fleet_of(scenario)[0])
        scenario = simulation.scaled_to(scenario, size, requests)
    simulation.check(scenario)
    folder = fresh_folder(f"simulated-{scenario.name}-{chosen}")
    try:
        run = simulation.simulate(
            scenario, chosen, backends, weights=weights, key=key, on_sent=on_sent
        )
    except Stopped as stopped:
        written = simulation.write(stopped.simulated, scenario, folder)
        raise Stopped(written) from stopped.__cause__
    return simulation.write(run, scenario, folder)
