"""Simulate a scenario by one method: the figures of `lab load` without Docker or waiting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..accounts import figures
from ..backends.llm.blocks import BLOCK_TOKENS
from ..backends.llm.profiles import PROFILES, Profile
from ..errors import UsageError
from ..evidence.folder import write_json, written_whole
from ..nginxconf import sources
from ..traffic.scenario import Scenario, described, machines
from . import fast
from .jobs import Workload, workload_of
from .outcome import Lengths, figures_of
from .picks import picks

MOST_BACKENDS = 10_000
PORT = 8000  # of a backend, in the `server` lines that the consistent hash hashes


@dataclass(frozen=True)
class Simulated:
    """A simulated run: scenario, method, figures, and the result of every request.

    `complete` is false if it was interrupted; `folder` is set when the folder has been written.
    """

    scenario: str
    method: str
    seed: int
    backends: int
    figures: figures.Figures
    run: fast.Run
    folder: Path | None = None
    complete: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Everything except the single requests as plain values, for JSON."""
        return {
            "scenario": self.scenario,
            "method": self.method,
            "simulated": True,
            "seed": self.seed,
            "backends": self.backends,
            "folder": str(self.folder) if self.folder else None,
            "complete": self.complete,
            "figures": figures.as_dict(self.figures),
            "preemptions": int(self.run.servers["preemptions"].sum()),
        }


class Stopped(KeyboardInterrupt):
    """A simulation was interrupted; `simulated` has the figures of the answered requests.

    Its cause is the KeyboardInterrupt or Terminated that interrupted it.
    """

    def __init__(self, simulated: Simulated) -> None:
        super().__init__()
        self.simulated = simulated


def simulate(
    scenario: Scenario,
    method: str,
    backends: int | None = None,
    *,
    weights: str = "",
    key: str = "",
    work: Workload | None = None,
    draws: int | None = None,
    on_sent: Callable[[int], None] | None = None,
) -> Simulated:
    """Simulate a scenario by one method, with as many backends as it has, or `backends`.

    `work` is the scenario's workload if it has been generated already. `draws` is the seed
    of nginx's random draws, if it is not the scenario's. `on_sent` is called with the number of
    requests sent so far. Ctrl-C and SIGTERM raise Stopped with the figures of the requests
    answered until then. UsageError for a scenario with a timeline or a queue limit, and for a
    request that is longer than a backend's KV cache.
    """
    check(scenario)
    names, machines = fleet_of(scenario, backends)
    work = work or workload_for(scenario)
    _check_fits(work, machines)
    servers = [f"{name}:{PORT}" for name in names]
    group, scope = sources.from_method(method, servers, weights, key, "header", zone=True)
    picked = picks(work, scenario, group, scope)
    work = work.picked()  # that frees 60 MB for 10 million requests
    weight_of_each = [server.weight for server in group.servers]
    interruption = None
    try:
        seed = scenario.seed if draws is None else draws
        run = fast.run(work, machines, method, picked, weight_of_each, seed, on_sent)
    except fast.Interrupted as interrupted:
        run, interruption = interrupted.run, interrupted.__cause__
    lengths = Lengths(work.prompt, work.output, work.stream)
    del work, picked  # 10 million requests take 340 MB, and the figures need only their lengths
    ended_by_count = scenario.requests is not None and (run.result.last >= 0).all()
    offered = None if ended_by_count else scenario.duration
    numbers = figures_of(lengths, run, scenario.targets, method, names, offered)
    result = Simulated(
        scenario.name, method, scenario.seed, len(names), numbers, run, complete=not interruption
    )
    if interruption:
        raise Stopped(result) from interruption
    return result


def check(scenario: Scenario) -> None:
    """Raise UsageError for a scenario with a timeline or a queue limit: neither is simulated."""
    if scenario.timeline:
        raise UsageError(
            f'scenario "{scenario.name}" has a timeline, which `lab simulate` does not support',
            f"lab load {scenario.name}",
        )
    names, machines = fleet_of(scenario)
    for name, (profile, _) in zip(names, machines, strict=True):
        if profile.max_queued:
            raise UsageError(
                f'scenario "{scenario.name}" has a queue_limit for {name}, which `lab simulate`'
                " does not support",
                f"lab load {scenario.name}",
            )


def workload_for(scenario: Scenario) -> Workload:
    """Generate a scenario's requests; closed-loop users get enough of them for its duration."""
    if scenario.arrivals != "closed" or scenario.requests is not None:
        return workload_of(scenario)
    # no answer is faster than 1 ms of the model
    seconds = scenario.duration or 0.0
    fastest = max(scenario.sessions.think, 0.02 / scenario.time_scale)
    return workload_of(scenario, max(16, int(4 * seconds / fastest)))


def fleet_of(
    scenario: Scenario, backends: int | None = None
) -> tuple[list[str], list[tuple[Profile, float]]]:
    """The backends' names, and the profile of each with the factor that stretches its steps."""
    if backends is not None and not 1 <= backends <= MOST_BACKENDS:
        raise UsageError(
            f"--backends {backends} is out of range", f"a number from 1 to {MOST_BACKENDS:,}"
        )
    named = list(machines(scenario).values())
    count = backends or len(named)
    # a larger fleet repeats the scenario's machines
    repeated = [named[place % len(named)] for place in range(count)]
    scaled = [
        (machine.limits.applied_to(PROFILES[machine.profile]), machine.slow / scenario.time_scale)
        for machine in repeated
    ]
    return [f"backend-{place + 1}" for place in range(count)], scaled


def scaled_to(scenario: Scenario, backends: int, requests: int | None) -> Scenario:
    """The scenario for a fleet of another size: rate, users and clients scale with the fleet."""
    factor = backends / len(machines(scenario))
    grown = replace(
        scenario,
        rate=scenario.rate * factor,
        users=round(scenario.users * factor) or scenario.users,
        clients=min(65_536, max(1, round(scenario.clients * factor)))
        if scenario.clients > 1
        else 1,
    )
    if requests is None:
        return grown
    return replace(grown, requests=requests, duration=None)


def write(simulated: Simulated, scenario: Scenario, folder: Path) -> Simulated:
    """Write the run folder: the scenario, the figures, each request's result, and run.json."""
    written = replace(simulated, folder=folder)
    answered = written.figures.overall.requests
    with written_whole(folder) as empty:
        write_json(empty / "scenario.json", described(scenario))
        write_json(empty / "figures.json", written.as_dict())
        np.savez(empty / "requests.npz", **written.run.result._asdict())
        _write_run(empty, written.scenario, written.method, answered, complete=written.complete)
    return written


def _write_run(folder: Path, scenario: str, method: str, answered: int, *, complete: bool) -> None:
    """Write run.json, by which other commands recognise a run folder."""
    values = {
        "kind": "simulated",
        "method": method,
        "traffic": scenario,
        "sequential": False,
        "sent": answered,
        "addresses": {},
        "notes": {"complete": complete},
    }
    write_json(folder / "run.json", values)


def _check_fits(work: Workload, machines: Sequence[tuple[Profile, float]]) -> None:
    """Raise UsageError for a request that is longer than the smallest KV cache of a backend."""
    smallest = min(profile.kv_blocks for profile, _ in machines) * BLOCK_TOKENS
    longest = int((work.prompt + work.output).max(initial=0))
    if longest > smallest:
        raise UsageError(
            f"a request of {longest:,} tokens is longer than a backend's KV cache: {smallest:,}",
            "a profile with more kv_blocks, or a smaller max of prompt and output",
        )
