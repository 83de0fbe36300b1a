"""Hold the simulator against life: the same scenarios, methods and seeds, live and simulated."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..simulate import simulation
from ..traffic import scenario as scenarios
from ..traffic.scenario import Lengths, Scenario
from . import load as live
from .collect import fresh_folder

if TYPE_CHECKING:
    from ..accounts.figures import Figures
    from ..stack.compose import Lab

SCENARIOS = ("uniform_chat", "heavy_tail", "mixed_fleet", "shared_prompts")
METHODS = ("round_robin", "least_conn", "least_time", "random_two", "prompt_prefix")
SECONDS = 12.0
TIME_SCALE = 0.2  # backends at a fifth of their speed: the machine's own delays weigh a fifth
CLOSE = 0.15  # a live figure and a simulated one that differ by no more agree

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
class Pair:
    """A percentile of the time to first token, live and simulated, in ms."""

    scenario: str
    method: str
    percentile: str
    live: float
    simulated: float
    folder: str

    @property
    def difference(self) -> float:
        """How much more the simulation says, as a share of the live figure."""
        return self.simulated / self.live - 1

    @property
    def is_close(self) -> bool:
        """Whether the two differ by at most 15 %."""
        return abs(self.difference) <= CLOSE


@dataclass(frozen=True, slots=True)
class Validation:
    """All pairs of a validation.

    `overhead_ms` is what nginx, client and network add to a request that needs no time, p50 and
    p99; the simulated figures contain the first.
    """

    overhead_ms: tuple[float, float]
    pairs: tuple[Pair, ...]
    folder: str

    @property
    def share_close(self) -> float:
        """The share of pairs within 15 %."""
        return sum(pair.is_close for pair in self.pairs) / len(self.pairs)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        pairs = [{**asdict(pair), "difference": pair.difference} for pair in self.pairs]
        p50, p99 = self.overhead_ms
        return {
            "overhead_p50_ms": p50,
            "overhead_p99_ms": p99,
            "share_close": self.share_close,
            "pairs": pairs,
            "folder": self.folder,
        }


def validate(
    lab: "Lab",
    names: Sequence[str] = SCENARIOS,
    methods: Sequence[str] = METHODS,
    duration: float = SECONDS,
    on_pairs: Callable[[Sequence[Pair]], None] | None = None,
) -> Validation:
    """Run each scenario by each method live and simulated; each cell is kept when it ends."""
    folder = fresh_folder("validate")
    folder.mkdir(parents=True)
    instant = live.load(lab, INSTANT, live.blank("round_robin")).figures.overall.ttft_ms
    overhead = (instant.p50 or 0.0, instant.p99 or 0.0)
    pairs: list[Pair] = []
    for name in names:
        scenario = replace(scenarios.load(name), duration=duration, time_scale=TIME_SCALE)
        for method in methods:
            found = list(_pairs(lab, scenario, method, overhead[0]))
            pairs += found
            _keep(Validation(overhead, tuple(pairs), str(folder)), folder)
            if on_pairs:
                on_pairs(found)
    return Validation(overhead, tuple(pairs), str(folder))


def _pairs(lab: "Lab", scenario: Scenario, method: str, overhead: float) -> list[Pair]:
    loaded = live.load(lab, scenario, live.blank(method))
    simulated = simulation.simulate(scenario, method)
    return [
        Pair(scenario.name, method, name, real, model + overhead, str(loaded.folder))
        for name in ("p50", "p99")
        if (real := _ttft(loaded.figures, name)) and (model := _ttft(simulated.figures, name))
    ]


def _ttft(numbers: "Figures", percentile: str) -> float | None:
    value: float | None = getattr(numbers.overall.ttft_ms, percentile)
    return value


def _keep(validation: Validation, folder: Path) -> None:
    text = json.dumps(validation.as_dict(), indent=1)
    (folder / "validation.json").write_text(text + "\n")
