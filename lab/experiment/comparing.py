"""Run scenarios by methods, live or simulated, in random order, and keep every run's result."""

import json
import math
import random
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..accounts.scorecard import RUNS, Run, Scorecard, read_runs, values_of
from ..errors import UsageError
from ..nginxconf import methods as known
from ..nginxconf import sources
from ..simulate import simulation
from ..simulate.picks import picks
from ..traffic import scenario as scenarios
from . import load as live
from .collect import fresh_folder

if TYPE_CHECKING:
    from ..simulate.jobs import Workload
    from ..stack.compose import Lab
    from ..traffic.scenario import Scenario

PLAN = "compare.json"
SHORTEST, LONGEST = 2, 60  # seconds of a run whose duration is chosen


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared. Seeds begin at each scenario's own; they are the same for all methods."""

    scenarios: tuple[str, ...]
    methods: tuple[str, ...]
    repeats: int
    duration: float = 0.0
    simulated: bool = False
    folder: Path | None = None

    def cells(self) -> list[tuple[int, str, str]]:
        """Every repeat of every scenario and method, in a random order within each repeat."""
        rng = random.Random(0)
        order = []
        for repeat in range(self.repeats):
            cells = [(repeat, name, method) for name in self.scenarios for method in self.methods]
            rng.shuffle(cells)
            order += cells
        return order


def estimate(plan: Plan) -> float:
    """Estimate the seconds that the live runs of a comparison take, by simulating them once."""
    seconds = [
        live.expected_seconds(_seeded(name, plan.duration, 0), plan.methods[0])
        for name in plan.scenarios
    ]
    return sum(seconds) * len(plan.methods) * plan.repeats


def fitted(plan: Plan, minutes: float) -> Plan:
    """The plan with the longest duration of a run with which all runs end within `minutes`.

    UsageError where the time does not suffice for runs of 2 s.
    """
    if estimate(replace(plan, duration=SHORTEST)) > 60 * minutes:
        least = estimate(replace(plan, duration=SHORTEST)) / 60
        raise UsageError(
            f"--minutes {minutes:g} is too short for {len(plan.cells())} runs",
            f"--minutes {math.ceil(least)}, or fewer methods, scenarios or repeats",
        )
    durations = range(SHORTEST + 1, LONGEST + 1)
    fit = bisect(durations, 60 * minutes, key=lambda s: estimate(replace(plan, duration=s)))
    return replace(plan, duration=SHORTEST + fit)


def check(plan: Plan) -> None:
    """Raise UsageError for a method, a scenario or a number of repeats that there is not."""
    for method in plan.methods:
        known.method(method)
    for name in plan.scenarios:
        scenarios.load(name)
    if plan.repeats < 1:
        raise UsageError(f"--repeats {plan.repeats}", "a number from 1")


def begin(plan: Plan) -> Plan:
    """Check a new comparison and write its folder."""
    check(plan)
    folder = fresh_folder("compare")
    folder.mkdir(parents=True)
    text = json.dumps({**asdict(plan), "folder": None}, indent=1)
    (folder / PLAN).write_text(text + "\n")
    return replace(plan, folder=folder)


def resumed(folder: Path) -> Plan:
    """A comparison that was begun; UsageError where the folder has none."""
    try:
        values: dict[str, Any] = json.loads((folder / PLAN).read_text())
        values |= {name: tuple(values[name]) for name in ("scenarios", "methods")}
        return Plan(**{**values, "folder": folder})
    except OSError as error:
        hint = "lab compare --resume .lab/runs/<time>-compare"
        raise UsageError(f"{folder / PLAN}: {error.strerror}", hint) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{folder / PLAN} is not a comparison: {error}", "lab compare") from None


def finished(plan: Plan) -> list[Run]:
    """The runs that a comparison has so far; a line cut off by an interrupt is run again."""
    assert plan.folder is not None
    return read_runs(plan.folder)


def compare(
    plan: Plan, lab: "Lab | None", on_run: Callable[[Run, int, int], None] | None = None
) -> Scorecard:
    """Do what is left of a comparison; each run is kept as soon as it ends."""
    assert plan.folder is not None
    runs = finished(plan)
    ended = {(run.seed, run.scenario, run.method) for run in runs}
    cells = plan.cells()
    laid_out: dict[tuple[str, int], Workload] = {}
    with (plan.folder / RUNS).open("a") as file:
        for repeat, name, method in cells:
            scenario = _seeded(name, plan.duration, repeat)
            if (scenario.seed, scenario.name, method) in ended:
                continue
            if plan.simulated:
                key = (name, repeat)
                if key not in laid_out:
                    laid_out[key] = simulation.laid_out(scenario)
                run = _simulated(scenario, method, laid_out[key])
            else:
                assert lab is not None
                run = _live(lab, scenario, method)
            runs.append(run)
            file.write(json.dumps(asdict(run)) + "\n")
            file.flush()
            if on_run:
                on_run(run, len(runs), len(cells))
    return Scorecard(tuple(runs), moved(plan), plan.simulated)


def _seeded(name: str, duration: float, repeat: int) -> "Scenario":
    scenario = scenarios.load(name)
    scenario = replace(scenario, duration=duration) if duration else scenario
    return replace(scenario, seed=scenario.seed + repeat)


def _simulated(scenario: "Scenario", method: str, work: "Workload") -> Run:
    run = simulation.simulate(scenario, method, work=work)
    return Run(scenario.name, method, scenario.seed, values_of(run.figures))


def _live(lab: "Lab", scenario: "Scenario", method: str) -> Run:
    loaded = live.load(lab, scenario, live.blank(method))
    return Run(
        scenario.name,
        method,
        scenario.seed,
        values_of(loaded.figures),
        loaded.holds,
        loaded.verdict.word,
        str(loaded.folder),
    )


def moved(plan: Plan) -> Mapping[str, Mapping[str, float | None]]:
    """The share of requests that another server gets when the last server goes.

    At least one in so many as there are servers has to move. None where the method does not
    decide by the request.
    """
    return {
        scenario.name: dict(_moved(scenario, plan.methods))
        for scenario in (_seeded(name, plan.duration, 0) for name in plan.scenarios)
    }


def _moved(scenario: "Scenario", methods: Sequence[str]) -> Iterator[tuple[str, float | None]]:
    names, _ = simulation.fleet_of(scenario)
    work = simulation.laid_out(scenario)
    for method in methods:
        both = [
            picks(
                work, scenario, *sources.from_method(method, servers, "", "", "header", zone=True)
            )
            for servers in _with_and_without_last([f"{name}:{simulation.PORT}" for name in names])
        ]
        if len(both) < 2 or both[0] is None or both[1] is None:
            yield method, None
        else:
            yield method, float(np.mean(both[0] != both[1]))


def _with_and_without_last(servers: Sequence[str]) -> list[Sequence[str]]:
    return [servers, servers[:-1]] if len(servers) > 1 else [servers]
