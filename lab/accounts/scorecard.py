"""The scorecard: methods compared in scenarios, by paired runs of the same requests."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # scipy.stats is loaded where it is first used

from ..evidence import typed
from .figures import Figures

CONFIDENCE = 0.95
RUNS = "runs.jsonl"  # in the folder of a comparison, one run a line
SMALL = 0.01  # a difference below this share of the best counts as none
ENOUGH = 8  # pairs; a bootstrap of fewer gives intervals that are too narrow
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a run, and whether more of it is better."""

    name: str
    value: Callable[[Figures], float | None]
    more_is_better: bool = False


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("ttft_p50_ms", lambda figures: figures.overall.ttft_ms.p50),
        Measure("ttft_p99_ms", lambda figures: figures.overall.ttft_ms.p99),
        Measure("itl_p50_ms", lambda figures: figures.overall.itl_ms.p50),
        Measure("itl_p99_ms", lambda figures: figures.overall.itl_ms.p99),
        Measure("e2e_p50_ms", lambda figures: figures.overall.e2e_ms.p50),
        Measure("e2e_p99_ms", lambda figures: figures.overall.e2e_ms.p99),
        Measure("goodput", lambda figures: figures.overall.goodput, more_is_better=True),
        Measure("fair_tokens", lambda figures: figures.fairness.tokens, more_is_better=True),
        Measure("fair_busy", lambda figures: figures.fairness.busy, more_is_better=True),
        Measure("cache_hits", lambda figures: figures.overall.cache_hit_rate, more_is_better=True),
        Measure("errors", lambda figures: float(figures.overall.failed)),
    )
}


@dataclass(frozen=True, slots=True)
class Run:
    """One scenario by one method with one seed; `values` has the known measures."""

    scenario: str
    method: str
    seed: int
    values: Mapping[str, float]
    holds: bool = True
    verdict: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much larger a method's measure is than another's, in runs with the same seeds.

    `low` and `high` are the 95 % confidence interval of the mean; None with a single pair.
    """

    mean: float
    low: float | None
    high: float | None

    @property
    def is_zero(self) -> bool:
        """Whether the measure was the same in every pair of runs."""
        return not any((self.mean, self.low, self.high))

    @property
    def is_decided(self) -> bool:
        """Whether the interval excludes zero."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Contest:
    """One measure in one scenario: each method's mean, and which method is best.

    `best` has one method, the winner, or the methods of a tie, the best mean first. `behind` has
    each other method's difference from the first.
    """

    scenario: str
    measure: str
    means: Mapping[str, float]
    best: tuple[str, ...]
    behind: Mapping[str, Difference]


@dataclass(frozen=True, slots=True)
class Scorecard:
    """All runs of a comparison and what follows from them."""

    runs: tuple[Run, ...]
    moved: Mapping[str, Mapping[str, float | None]]  # by scenario and method
    simulated: bool = False

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The scenarios, sorted."""
        return tuple(sorted({run.scenario for run in self.runs}))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, sorted."""
        return tuple(sorted({run.method for run in self.runs}))

    def contests(self) -> Iterator[Contest]:
        """Yield every measure of every scenario that at least two methods have."""
        for scenario in self.scenarios:
            for measure in MEASURES.values():
                values = self.values(scenario, measure.name)
                if len(values) > 1:
                    yield contest(scenario, measure, values)

    def values(self, scenario: str, measure: str) -> dict[str, dict[int, float]]:
        """A measure by method and seed."""
        values: dict[str, dict[int, float]] = {}
        for run in self.runs:
            if run.scenario == scenario and measure in run.values:
                values.setdefault(run.method, {})[run.seed] = run.values[measure]
        return values

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "simulated": self.simulated,
            "scenarios": self.scenarios,
            "methods": self.methods,
            "contests": [_contest_as_dict(result) for result in self.contests()],
            "moved": self.moved,
            "trade_offs": list(trade_offs(self.contests())),
            "runs": [
                {name: getattr(run, name) for name in Run.__dataclass_fields__} for run in self.runs
            ],
        }


def read_runs(folder: Path) -> list[Run]:
    """The finished runs in a comparison's folder, in the order in which they ended.

    An incomplete line, left by an interruption, is skipped: that run did not end.
    """
    file = folder / RUNS
    runs = []
    for line in file.read_bytes().splitlines() if file.exists() else []:
        with suppress(typed.MisfitError):
            runs.append(typed.read(Run, line))
    return runs


def values_of(numbers: Figures) -> dict[str, float]:
    """The measures of a run that are known."""
    pairs = ((measure.name, measure.value(numbers)) for measure in MEASURES.values())
    return {name: float(value) for name, value in pairs if value is not None}


def contest(scenario: str, measure: Measure, values: Mapping[str, Mapping[int, float]]) -> Contest:
    """Compare methods by a measure: a winner beats every other method, else it is a tie."""
    means = {method: float(np.mean(list(seen.values()))) for method, seen in values.items()}
    sign = -1 if measure.more_is_better else 1
    first = min(means, key=lambda method: (sign * means[method], method))
    behind = {
        method: difference(values[method], values[first]) for method in means if method != first
    }
    level = SMALL * abs(means[first])
    ties = [method for method, gap in behind.items() if not gap.is_decided or abs(gap.mean) < level]
    return Contest(scenario, measure.name, means, (first, *sorted(ties)), behind)


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """The paired difference of two methods, with its confidence interval.

    Percentile bootstrap of the mean over seeds (Efron, 1979). With fewer than 8 pairs that is too
    narrow, so the wider of it and the interval of Student's t is used.
    """
    seeds = sorted(one.keys() & other.keys())
    gaps = np.array([one[seed] - other[seed] for seed in seeds])
    if len(gaps) < 2:
        return Difference(float(gaps.mean()) if len(gaps) else 0.0, None, None)
    mean = float(gaps.mean())
    if np.ptp(gaps) == 0:
        return Difference(mean, mean, mean)
    low, high = _bootstrap(gaps)
    if len(gaps) < ENOUGH:
        t_low, t_high = _student(gaps)
        low, high = min(low, t_low), max(high, t_high)
    return Difference(mean, low, high)


def _bootstrap(gaps: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    interval = scipy.stats.bootstrap(
        (gaps,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _student(gaps: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    low, high = scipy.stats.t.interval(CONFIDENCE, len(gaps) - 1, gaps.mean(), error)
    return float(low), float(high)


def trade_offs(contests: Iterable[Contest]) -> Iterator[str]:
    """Yield each case where the winner of one measure loses another in the same scenario."""
    by_scenario: dict[str, list[Contest]] = {}
    for result in contests:
        by_scenario.setdefault(result.scenario, []).append(result)
    for scenario, group in by_scenario.items():
        for method in sorted({result.best[0] for result in group if len(result.best) == 1}):
            wins = [result.measure for result in group if result.best == (method,)]
            losses = [result.measure for result in group if method not in result.best]
            if losses:
                yield f"{scenario}: {method} wins {', '.join(wins)}; loses {', '.join(losses)}"


def _contest_as_dict(result: Contest) -> dict[str, Any]:
    return {
        "scenario": result.scenario,
        "measure": result.measure,
        "means": result.means,
        "best": result.best,
        "winner": result.best[0] if len(result.best) == 1 else None,
        "behind": {
            method: {"mean": gap.mean, "low": gap.low, "high": gap.high}
            for method, gap in result.behind.items()
        },
    }
