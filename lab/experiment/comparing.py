"""Run scenarios by methods, live or simulated, in random order, and keep every run's result."""

import json
import math
import random
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..accounts.scorecard import RUNS, Run, Scorecard, read_runs, values_of
from ..errors import UsageError
from ..evidence import typed
from ..evidence.folder import write_json
from ..nginxconf import methods as known
from ..nginxconf import sources
from ..simulate import simulation
from ..simulate.picks import picks
from ..traffic import scenario_choice
from ..traffic.scenario import Scenario
from . import load as live
from .collect import fresh_folder

if TYPE_CHECKING:
    from ..simulate.jobs import Workload
    from ..stack.compose import Lab

PLAN = "compare.json"
SHORTEST, LONGEST = 2, 60  # seconds of a run whose duration is chosen


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a comparison. Seeds start at the scenario's own and are equal for all methods."""

    scenarios: tuple[str, ...]
    methods: tuple[str, ...]
    repeats: int
    duration: float = 0.0
    simulated: bool = False
    folder: Path | None = None

    def cells(self) -> list[tuple[int, str, str]]:
        """Every run as (repeat, scenario, method), in random order within each repeat."""
        rng = random.Random(0)
        order = []
        for repeat in range(self.repeats):
            cells = [(repeat, name, method) for name in self.scenarios for method in self.methods]
            rng.shuffle(cells)
            order += cells
        return order


def estimate(plan: Plan) -> float:
    """Estimate the seconds that the live runs of a comparison take.

    Simulates every repeat with the first method: one more long answer can double a run's time.
    """
    seconds = [
        live.expected_seconds(_seeded(name, plan.duration, repeat), plan.methods[0])
        for name in plan.scenarios
        for repeat in range(plan.repeats)
    ]
    return sum(seconds) * len(plan.methods)


def fitted(plan: Plan, minutes: float) -> Plan:
    """The plan with the longest duration per run for which all runs end within `minutes`.

    UsageError if that is less than 2 s.
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
    """Raise UsageError for what cannot be compared.

    That is a method or a scenario that is unknown or given twice, and a duration or a number of
    repeats that is out of range. Runs are told apart by the scenario's name, not by its file.
    """
    methods = Counter(known.method(method).name for method in plan.methods)
    named = Counter(_seeded(name, plan.duration, 0).name for name in plan.scenarios)
    for kind, counts in (("method", methods), ("scenario", named)):
        if name := next((name for name, times in counts.items() if times > 1), ""):
            raise UsageError(f'{kind} "{name}" is given twice', f"a different name for each {kind}")
    if plan.repeats < 1:
        raise UsageError(f"--repeats {plan.repeats} is out of range", "1 or more")


def begin(plan: Plan, minutes: float = 0.0) -> Plan:
    """Check a new comparison and write its folder; `minutes` chooses the duration of its runs."""
    check(plan)
    plan = fitted(plan, minutes) if minutes else plan
    folder = fresh_folder("compare")
    folder.mkdir(parents=True)
    write_json(folder / PLAN, {**asdict(plan), "folder": None})
    return replace(plan, folder=folder)


def resumed(folder: Path) -> Plan:
    """The plan of a comparison that was begun in `folder`; UsageError if there is none."""
    try:
        plan = typed.read(Plan, (folder / PLAN).read_bytes())
    except OSError as error:
        hint = "lab compare --resume .lab/runs/<time>-compare"
        raise UsageError(f"{folder / PLAN}: {error.strerror}", hint) from None
    except typed.MisfitError as error:
        raise UsageError(f"{folder / PLAN} is not a comparison: {error}", "lab compare") from None
    check(plan)
    return replace(plan, folder=folder)


def finished(plan: Plan) -> list[Run]:
    """The finished runs of a comparison; a line that an interrupt cut off is left out."""
    assert plan.folder is not None
    return read_runs(plan.folder)


def compare(
    plan: Plan, lab: "Lab | None", on_run: Callable[[Run, int, int], None] | None = None
) -> Scorecard:
    """Do the remaining runs of a comparison; write each result as soon as its run ends."""
    assert plan.folder is not None
    runs = finished(plan)
    ended = {(run.seed, run.scenario, run.method) for run in runs}
    cells = plan.cells()
    workloads: dict[tuple[str, int], Workload] = {}
    with (plan.folder / RUNS).open("a") as file:
        if file.tell() and not (plan.folder / RUNS).read_bytes().endswith(b"\n"):
            file.write("\n")  # ends a line that an interruption cut off
        for repeat, name, method in cells:
            scenario = _seeded(name, plan.duration, repeat)
            if (scenario.seed, scenario.name, method) in ended:
                continue
            if plan.simulated:
                key = (name, repeat)
                if key not in workloads:
                    workloads[key] = simulation.workload_for(scenario)
                run = _simulated(scenario, method, workloads[key])
            else:
                assert lab is not None
                run = _live(lab, scenario, method)
            runs.append(run)
            file.write(json.dumps(asdict(run)) + "\n")
            file.flush()
            if on_run:
                on_run(run, len(runs), len(cells))
    return Scorecard(tuple(runs), moved(plan), plan.simulated)


def _seeded(name: str, duration: float, repeat: int) -> Scenario:
    scenario = scenario_choice.lasting(scenario_choice.load(name), duration)
    return replace(scenario, seed=scenario.seed + repeat)


def _simulated(scenario: Scenario, method: str, work: "Workload") -> Run:
    run = simulation.simulate(scenario, method, work=work)
    return Run(scenario.name, method, scenario.seed, values_of(run.figures))


def _live(lab: "Lab", scenario: Scenario, method: str) -> Run:
    loaded = live.load(lab, scenario, live.choice_without_backends(method))
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
    """The share of requests that move when the last server is removed, by scenario.

    With n servers it is at least about 1/n. None for a method that does not pick by the request.
    """
    return {
        scenario.name: dict(_moved(scenario, plan.methods))
        for scenario in (_seeded(name, plan.duration, 0) for name in plan.scenarios)
    }


def _moved(scenario: Scenario, methods: Sequence[str]) -> Iterator[tuple[str, float | None]]:
    names, _ = simulation.fleet_of(scenario)
    servers = [f"{name}:{simulation.PORT}" for name in names]
    work = simulation.workload_for(scenario)
    for method in methods:
        before, after = (
            picks(work, scenario, *sources.from_method(method, group, "", "", "header", zone=True))
            for group in (servers, servers[:-1] or servers)
        )
        if len(servers) < 2 or before is None or after is None:
            yield method, None
        else:
            yield method, float(np.mean(before != after))
