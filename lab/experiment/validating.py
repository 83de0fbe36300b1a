"""Validate the simulator: the same scenarios, methods and seeds, live and simulated."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..simulate import simulation
from ..traffic import scenario as scenarios
from ..traffic.scenario import Lengths, Scenario
from . import load as live
from .collect import fresh_folder

if TYPE_CHECKING:
    from ..accounts.figures import Figures
    from ..accounts.outcome import Loaded
    from ..stack.compose import Lab

SCENARIOS = ("uniform_chat", "heavy_tail", "mixed_fleet", "shared_prompts")
METHODS = ("round_robin", "least_conn", "least_time", "random_two", "prompt_prefix")
SECONDS = 10.0
REPEATS = 2
TIME_SCALE = 0.25  # backends at a quarter of their speed: the machine's delays weigh a quarter
LONGEST = 256  # tokens of an answer: a run ends soon after its last request
CLOSE = 0.15  # a live figure and a simulated one that differ by no more agree
PERCENTILES = ("p50", "p99")

# One token from a server that needs no time for it: what is left is nginx, client and network.
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

    `lives` has one figure for each live run, all with the seed of the simulated one. `late_ms` is
    how far the live backends' tokens were behind their model: the p99 of the worst run.
    """

    scenario: str
    method: str
    percentile: str
    lives: tuple[float, ...]
    simulated: float
    late_ms: float
    folders: tuple[str, ...]

    @property
    def live(self) -> float:
        """The mean of the live figures."""
        return sum(self.lives) / len(self.lives)

    @property
    def spread(self) -> float:
        """The difference between the largest and the smallest live figure."""
        return max(self.lives) - min(self.lives)

    @property
    def difference(self) -> float:
        """How much larger the simulated figure is, as a share of the live one."""
        return self.simulated / self.live - 1

    @property
    def is_close(self) -> bool:
        """Whether the two differ by at most 15 %."""
        return abs(self.difference) <= CLOSE


@dataclass(frozen=True, slots=True)
class Order:
    """Two methods of a scenario whose live figures differ by more than the live noise."""

    scenario: str
    percentile: str
    lower: str  # the method with the lower live figure
    higher: str
    agrees: bool  # whether the simulated figures have the same order


@dataclass(frozen=True, slots=True)
class Validation:
    """All cells of a validation.

    `overhead_ms` is what nginx, client and network add to a request that needs no time, p50 and
    p99; the simulated figures contain the first.
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
    """Return how many live runs a validation makes, and about how many seconds they take."""
    seconds = [
        live.expected_seconds(slowed(name, duration), method)
        for name in names
        for method in methods
    ]
    return repeats * len(seconds), repeats * sum(seconds)


def slowed(name: str, duration: float) -> Scenario:
    """A scenario as it is validated: on slow backends, with answers of at most 256 tokens."""
    scenario = scenarios.load(name)
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

    Live runs are in random order within each repeat. After every run, what is known so far is
    written to validation.json in the folder. `on_run` gets the cells of the run that has ended.
    """
    folder = fresh_folder("validate")
    folder.mkdir(parents=True)
    instant = live.load(lab, INSTANT, live.blank("round_robin")).figures.overall.ttft_ms
    overhead = (instant.p50 or 0.0, instant.p99 or 0.0)
    runs: dict[tuple[str, str], list[Loaded]] = {}
    cells: dict[tuple[str, str], list[Cell]] = {}
    for name, method in _in_random_order(names, methods, repeats):
        scenario = slowed(name, duration)
        loaded = runs.setdefault((name, method), [])
        loaded.append(live.load(lab, scenario, live.blank(method)))
        model = simulation.simulate(scenario, method).figures
        cells[name, method] = list(_cells(scenario.name, method, loaded, model, overhead[0]))
        _write(_validation(overhead, cells, names, methods, folder))
        if on_run:
            on_run(cells[name, method])
    return _validation(overhead, cells, names, methods, folder)


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
    """The cells that are known, in the order in which scenarios and methods were given."""
    keys = [(name, method) for name in names for method in methods]
    known = [cell for key in keys for cell in cells.get(key, ())]
    return Validation(overhead, tuple(known), str(folder))


def _cells(
    name: str, method: str, loaded: "Sequence[Loaded]", model: "Figures", overhead: float
) -> Iterator[Cell]:
    late = max(one.figures.overall.late_ms.p99 or 0.0 for one in loaded)
    folders = tuple(str(one.folder) for one in loaded)
    for percentile in PERCENTILES:
        lives = tuple(v for one in loaded if (v := _ttft(one.figures, percentile)))
        if lives and (simulated := _ttft(model, percentile)):
            yield Cell(name, method, percentile, lives, simulated + overhead, late, folders)


def _ttft(numbers: "Figures", percentile: str) -> float | None:
    value: float | None = getattr(numbers.overall.ttft_ms, percentile)
    return value


def _write(validation: Validation) -> None:
    text = json.dumps(validation.as_dict(), indent=1)
    (Path(validation.folder) / "validation.json").write_text(text + "\n")
