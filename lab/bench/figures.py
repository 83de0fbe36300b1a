"""The results of a bench: series of values, and ratios of series measured in turn."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Series:
    """The values of one measurement, one for each repeat.

    `section` and `what` name the measurement, `subject` what was measured, `unit` its unit.
    """

    section: str
    what: str
    subject: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bound for the median of a series; `most` says that it is an upper bound."""

    what: str
    subject: str
    bound: float
    most: bool = True

    def holds(self, value: float) -> bool:
        """Whether a value keeps within the bound."""
        return value <= self.bound if self.most else value >= self.bound


@dataclass(frozen=True, slots=True)
class Checked:
    """A bar, its series, and whether it holds."""

    series: Series
    bar: Bar

    @property
    def holds(self) -> bool:
        """Whether the median keeps within the bound."""
        return self.bar.holds(self.series.median)


def ratio(what: str, subject: str, series: Series, reference: Series) -> Series:
    """A series divided by a reference, repeat by repeat, so that both had the same conditions."""
    pairs = zip(series.values, reference.values, strict=True)
    return Series(series.section, what, subject, "ratio", tuple(a / b for a, b in pairs))


def checked(figures: Iterable[Series], bars: Iterable[Bar]) -> list[Checked]:
    """Every bar that has a series, in the order of the bars."""
    by_name = {(series.what, series.subject): series for series in figures}
    return [
        Checked(by_name[bar.what, bar.subject], bar)
        for bar in bars
        if (bar.what, bar.subject) in by_name
    ]


def as_dict(figures: Iterable[Series], targets: Iterable[Checked]) -> Mapping[str, Any]:
    """All series and all bars, for programs."""
    return {
        "series": [{**asdict(series), "median": series.median} for series in figures],
        "bars": [
            {**asdict(target.bar), "median": target.series.median, "holds": target.holds}
            for target in targets
        ],
    }
