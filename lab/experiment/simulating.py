"""Simulate a scenario and keep its run folder, also of a simulation that was interrupted."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..nginxconf import methods
from ..simulate import simulation
from ..simulate.simulation import Simulated, Stopped
from .collect import fresh_folder

if TYPE_CHECKING:
    from ..traffic.scenario import Scenario

MOST_REQUESTS = 20_000_000


def simulated(
    scenario: "Scenario",
    method: str,
    backends: int | None = None,
    requests: int | None = None,
    weights: str = "",
    key: str = "",
    on_sent: Callable[[int], None] | None = None,
) -> Simulated:
    """Simulate a scenario by one method and write its folder under .lab/runs.

    Ctrl-C raises Stopped, after what was answered until then has been written.
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
        raise Stopped(simulation.write(stopped.simulated, scenario, folder)) from None
    return simulation.write(run, scenario, folder)
