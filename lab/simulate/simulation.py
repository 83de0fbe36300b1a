"""A scenario simulated by one method: what `lab load` measures, without Docker and in no time."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..accounts import figures
from ..backends.llm.profiles import PROFILES, Profile
from ..errors import UsageError
from ..evidence.folder import whole
from ..nginxconf import sources
from ..traffic import scenario as scenarios
from . import fast
from .jobs import BLOCK_TOKENS, Workload, workload_of
from .outcome import Lengths, figures_of
from .picks import picks

if TYPE_CHECKING:
    from ..traffic.scenario import Scenario

MOST_BACKENDS = 10_000
PORT = 8000  # of a backend, in the `server` lines that the consistent hash hashes


@dataclass(frozen=True)
class Simulated:
    """A simulated run: its scenario, its method, its figures, what became of each request."""

    scenario: str
    method: str
    seed: int
    backends: int
    figures: figures.Figures
    run: fast.Run
    folder: Path | None = None
    complete: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Give everything but the single requests as plain values, for JSON."""
        return {
            "scenario": self.scenario,
            "method": self.method,
            "simulated": True,
            "seed": self.seed,
            "backends": self.backends,
            "folder": str(self.folder) if self.folder else None,
            "complete": self.complete,
            "figures": figures.as_dict(self.figures),
            "preemptions": int(self.run.state.servers["preemptions"].sum()),
        }


class Stopped(KeyboardInterrupt):
    """A simulation was interrupted; `simulated` has the figures of what was answered."""

    def __init__(self, simulated: Simulated) -> None:
        super().__init__()
        self.simulated = simulated


def simulate(
    scenario: "Scenario",
    method: str,
    backends: int | None = None,
    *,
    weights: str = "",
    key: str = "",
    work: Workload | None = None,
    on_sent: Callable[[int], None] | None = None,
) -> Simulated:
    """Simulate a scenario; `backends` replaces the scenario's number of them.

    `work` is the scenario's workload where it is laid out already. Ctrl-C raises Stopped with the
    figures of what was answered until then. UsageError for a scenario with
    a timeline, and for a request that no backend can hold.
    """
    check(scenario)
    names, machines = fleet_of(scenario, backends)
    work = work or laid_out(scenario)
    _check_fits(work, machines)
    servers = [f"{name}:{PORT}" for name in names]
    group, scope = sources.from_method(method, servers, weights, key, "header", zone=True)
    chosen, weighed = picks(work, scenario, group, scope), [one.weight for one in group.servers]
    complete = True
    try:
        run = fast.run(work, machines, method, chosen, weighed, scenario.seed, on_sent)
    except fast.Interrupted as interrupted:
        run, complete = interrupted.run, False
    lengths = Lengths(work.prompt, work.output, work.stream)
    del work  # of 10 million requests 300 MB, which nobody needs any more
    numbers = figures_of(lengths, run, scenario.targets, method, names)
    result = Simulated(
        scenario.name, method, scenario.seed, len(names), numbers, run, complete=complete
    )
    if not complete:
        raise Stopped(result)
    return result


def check(scenario: "Scenario") -> None:
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


def laid_out(scenario: "Scenario") -> Workload:
    """Generate a scenario's requests; closed-loop users get enough for the whole duration."""
    if scenario.arrivals != "closed" or scenario.requests is not None:
        return workload_of(scenario)
    # no answer is faster than 1 ms of the model
    seconds = scenario.duration or 0.0
    fastest = max(scenario.sessions.think, 0.02 / scenario.time_scale)
    return workload_of(scenario, max(16, int(4 * seconds / fastest)))


def fleet_of(
    scenario: "Scenario", backends: int | None = None
) -> tuple[list[str], list[tuple[Profile, float]]]:
    """The backends' names, and each one's profile and the factor that stretches its steps."""
    if backends is not None and not 1 <= backends <= MOST_BACKENDS:
        raise UsageError(f"--backends {backends}", f"a number from 1 to {MOST_BACKENDS:,}")
    named = list(scenarios.machines(scenario).values())
    count = backends or len(named)
    # a larger fleet repeats the scenario's machines
    machines = [named[place % len(named)] for place in range(count)]
    if any(one.limits.queue_limit for one in machines):
        raise UsageError("a queue_limit is not simulated", "leave it out, or send a live load")
    scaled = [
        (one.limits.of(PROFILES[one.profile]), one.slow / scenario.time_scale) for one in machines
    ]
    return [f"backend-{place + 1}" for place in range(count)], scaled


def scaled_to(scenario: "Scenario", backends: int, requests: int | None) -> "Scenario":
    """The scenario for a fleet of another size: the load grows as the fleet does."""
    factor = backends / len(scenarios.machines(scenario))
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


def write(simulated: Simulated, scenario: "Scenario", folder: Path) -> Simulated:
    """Write a folder: the scenario, the figures, what became of each request, and run.json."""
    kept = replace(simulated, folder=folder)
    answered = kept.figures.overall.requests
    with whole(folder) as empty:
        _write_json(empty / "scenario.json", scenarios.described(scenario))
        _write_json(empty / "figures.json", kept.as_dict())
        np.savez(empty / "requests.npz", **kept.run.result._asdict())
        _write_run(empty, kept.scenario, kept.method, answered, complete=kept.complete)
    return kept


def _write_run(folder: Path, scenario: str, method: str, answered: int, *, complete: bool) -> None:
    """Write run.json, by which other commands know the folder."""
    values = {
        "kind": "simulated",
        "method": method,
        "traffic": scenario,
        "sequential": False,
        "sent": answered,
        "addresses": {},
        "notes": {"complete": complete},
    }
    _write_json(folder / "run.json", values)


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n")


def _check_fits(work: Workload, machines: Sequence[tuple[Profile, float]]) -> None:
    """Refuse a workload with a request that is longer than the blocks of some backend."""
    smallest = min(profile.kv_blocks for profile, _ in machines) * BLOCK_TOKENS
    longest = int((work.prompt + work.output).max(initial=0))
    if longest > smallest:
        raise UsageError(
            f"a request of {longest:,} tokens is longer than a backend's KV cache: {smallest:,}",
            "a profile with more kv_blocks, or a smaller max of prompt and output",
        )
