"""Validate the simulator: run the same scenarios, methods and seeds live and simulated."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..accounts import figures
from ..evidence import record
from ..evidence.folder import write_json
from ..nginxconf.methods import DEFAULT, Varied, varying
from ..simulate import simulation
from ..traffic import scenario_choice
from ..traffic.scenario import Lengths, Scenario
from . import load as live
from .collect import fresh_folder

if TYPE_CHECKING:
    from ..accounts.figures import Figures
    from ..accounts.outcome import Loaded
    from ..stack.compose import Lab

SCENARIOS = ("uniform_chat", "heavy_tail", "mixed_fleet", "shared_prompts")
# nginx's default, and the methods that depend on the durations of answers or on prompts
METHODS = (DEFAULT.name, *varying(Varied.DURATIONS), *varying(Varied.PROMPTS))
SECONDS = 10.0
REPEATS = 2
SIMULATIONS = 20  # of each scenario and method, each with other delays and draws
TIME_SCALE = 0.25  # backends at a quarter of their speed: the machine's delays matter less
LONGEST = 256  # tokens of an answer, so that a run ends soon after its last request
CLOSE = 0.15  # relative difference up to which a simulated figure agrees with the live one
PERCENTILES = ("p50", "p99")

Delays: TypeAlias = npt.NDArray[np.float64]

# The server needs no time for its one token: all time is that of nginx, client and network.
INSTANT = Scenario(
    "instant",
    duration=5.0,
    arrivals="constant",
    rate=8.0,
    prompt=Lengths(tokens=256),
    output=Lengths(tokens=1),
    profile="instant",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A percentile of the time to first token of one scenario by one method, in ms.

    `lives` has the figure of each live run, `simulations` that of each simulation; all have the
    same seed. `late_ms` is the p99 delay of the live backends' tokens behind their model, in the
    worst run.
    """

    scenario: str
    method: str
    percentile: str
    lives: tuple[float, ...]
    simulations: tuple[float, ...]
    late_ms: float
    folders: tuple[str, ...]

    @property
    def live(self) -> float:
        """The mean of the live figures."""
        return sum(self.lives) / len(self.lives)

    @property
    def simulated(self) -> float:
        """The mean of the simulated figures."""
        return sum(self.simulations) / len(self.simulations)

    @property
    def spread(self) -> float:
        """The difference between the largest and the smallest live figure."""
        return max(self.lives) - min(self.lives)

    @property
    def simulated_spread(self) -> float:
        """The difference between the largest and the smallest simulated figure."""
        return max(self.simulations) - min(self.simulations)

    @property
    def difference(self) -> float:
        """How much larger the simulated figure is, as a share of the live one."""
        return self.simulated / self.live - 1

    @property
    def is_close(self) -> bool:
        """Whether the live figure and the simulated one differ by at most 15 %."""
        return abs(self.difference) <= CLOSE


@dataclass(frozen=True, slots=True)
class Order:
    """Two methods of a scenario whose live figures differ by more than those of repeated runs."""

    scenario: str
    percentile: str
    lower: str  # the method with the lower live figure
    higher: str
    agrees: bool  # whether the simulated figures have the same order


@dataclass(frozen=True, slots=True)
class Validation:
    """All cells of a validation.

    `overhead_ms` is the time that nginx, client and network take, p50 and p99. The p50 has been
    added to the simulated figures.
    """

    overhead_ms: tuple[float, float]
    cells: tuple[Cell, ...]
    folder: str

    @property
    def share_close(self) -> float:
        """The share of cells within 15 %."""
        return sum(cell.is_close for cell in self.cells) / len(self.cells)

    def noise(self, scenario: str, percentile: str) -> float:
        """The largest spread of repeated live runs among a scenario's methods, in ms."""
        return max(cell.spread for cell in self._column(scenario, percentile))

    def orders(self) -> Iterator[Order]:
        """Yield each pair of methods whose live difference is larger than the live noise."""
        for scenario, percentile in dict.fromkeys((c.scenario, c.percentile) for c in self.cells):
            noise = self.noise(scenario, percentile)
            column = sorted(self._column(scenario, percentile), key=lambda cell: cell.live)
            for lower, higher in combinations(column, 2):
                if higher.live - lower.live > noise:
                    agrees = higher.simulated > lower.simulated
                    yield Order(scenario, percentile, lower.method, higher.method, agrees)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        p50, p99 = self.overhead_ms
        return {
            "overhead_p50_ms": p50,
            "overhead_p99_ms": p99,
            "share_close": self.share_close,
            "cells": [
                {
                    **asdict(cell),
                    "live": cell.live,
                    "simulated": cell.simulated,
                    "difference": cell.difference,
                    "noise": self.noise(cell.scenario, cell.percentile),
                }
                for cell in self.cells
            ],
            "orders": [asdict(order) for order in self.orders()],
            "folder": self.folder,
        }

    def _column(self, scenario: str, percentile: str) -> list[Cell]:
        wanted = (scenario, percentile)
        return [cell for cell in self.cells if (cell.scenario, cell.percentile) == wanted]


def estimate(
    names: Sequence[str], methods: Sequence[str], duration: float, repeats: int
) -> tuple[int, float]:
    """Return the number of live runs of a validation, and about how many seconds they take."""
    seconds = [
        live.expected_seconds(slowed(name, duration), method)
        for name in names
        for method in methods
    ]
    return repeats * len(seconds), repeats * sum(seconds)


def slowed(name: str, duration: float) -> Scenario:
    """A scenario as it is validated: on slow backends, with answers of at most 256 tokens."""
    scenario = scenario_choice.load(name)
    return replace(
        scenario, duration=duration, time_scale=TIME_SCALE, output=_shortened(scenario.output)
    )


def _shortened(output: Lengths) -> Lengths:
    if output.dist == "fixed":
        return replace(output, tokens=min(output.tokens, LONGEST))
    return replace(output, max=min(output.max, LONGEST))


def validate(
    lab: "Lab",
    names: Sequence[str] = SCENARIOS,
    methods: Sequence[str] = METHODS,
    duration: float = SECONDS,
    repeats: int = REPEATS,
    on_run: Callable[[Sequence[Cell]], None] | None = None,
) -> Validation:
    """Run each scenario by each method live and simulated.

    Live runs are in random order within each repeat. After each one, all results so far are
    written to validation.json in the folder, and `on_run` is called with its cells.
    """
    folder = fresh_folder("validate")
    folder.mkdir(parents=True)
    instant = live.load(lab, INSTANT, live.choice_without_backends(DEFAULT.name))
    spread = instant.figures.overall.ttft_ms
    overhead = (spread.p50 or 0.0, spread.p99 or 0.0)
    delays = _delays(instant.folder)
    runs: dict[tuple[str, str], list[Loaded]] = {}
    cells: dict[tuple[str, str], list[Cell]] = {}
    for name, method in _in_random_order(names, methods, repeats):
        scenario = slowed(name, duration)
        loaded = runs.setdefault((name, method), [])
        loaded.append(live.load(lab, scenario, live.choice_without_backends(method)))
        models = simulated(scenario, method, delays)
        cells[name, method] = list(_cells(scenario.name, method, loaded, models, overhead[0]))
        so_far = _validation(overhead, cells, names, methods, folder)
        write_json(folder / "validation.json", so_far.as_dict())
        if on_run:
            on_run(cells[name, method])
    return _validation(overhead, cells, names, methods, folder)


def simulated(scenario: Scenario, method: str, delays: "Delays") -> "list[Figures]":
    """Simulate a scenario 20 times.

    Each simulation draws every request's delay from `delays`, in seconds, minus their median, and
    uses a different seed for nginx's random draws, because both also differ between live runs.
    """
    work = simulation.workload_for(scenario)
    around_zero = delays - np.median(delays)
    rng = np.random.default_rng(scenario.seed)
    return [
        simulation.simulate(
            scenario,
            method,
            work=work.delayed(rng.choice(around_zero, len(work))),
            draws=scenario.seed + number,
        ).figures
        for number in range(SIMULATIONS)
    ]


def _delays(place: Path) -> "Delays":
    """The seconds that nginx, client and network added to each request of a run folder."""
    times = [figures.ttft_ms(one) for one in record.read(place / "client.jsonl")]
    return np.array([ms / 1e3 for ms in times if ms is not None])


def _in_random_order(
    names: Sequence[str], methods: Sequence[str], repeats: int
) -> Iterator[tuple[str, str]]:
    rng = random.Random(0)
    pairs = [(name, method) for name in names for method in methods]
    for _ in range(repeats):
        yield from rng.sample(pairs, len(pairs))


def _validation(
    overhead: tuple[float, float],
    cells: dict[tuple[str, str], list[Cell]],
    names: Sequence[str],
    methods: Sequence[str],
    folder: Path,
) -> Validation:
    """The cells measured so far, in the order in which scenarios and methods were given."""
    keys = [(name, method) for name in names for method in methods]
    known = [cell for key in keys for cell in cells.get(key, ())]
    return Validation(overhead, tuple(known), str(folder))


def _cells(
    name: str,
    method: str,
    loaded: "Sequence[Loaded]",
    models: "Sequence[Figures]",
    overhead: float,
) -> Iterator[Cell]:
    late = max(run.figures.overall.late_ms.p99 or 0.0 for run in loaded)
    folders = tuple(str(run.folder) for run in loaded)
    for percentile in PERCENTILES:
        lives = tuple(ms for run in loaded if (ms := _ttft(run.figures, percentile)))
        simulations = tuple(ms + overhead for run in models if (ms := _ttft(run, percentile)))
        if lives and simulations:
            yield Cell(name, method, percentile, lives, simulations, late, folders)


def _ttft(numbers: "Figures", percentile: str) -> float | None:
    value: float | None = getattr(numbers.overall.ttft_ms, percentile)
    return value
