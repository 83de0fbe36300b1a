"""Pictures as SVG text: they use the page's colours and have a label for screen readers."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

INK = "#012345"  # stands for the page's text colour until the SVG is written
COLUMNS = 400  # of a timeline: about the pixels between which its steps can be told apart
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Tol
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nginx-llm-lab",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


@dataclass(frozen=True, slots=True)
class Mark:
    """An event at a time in a run, in seconds: a fault, a switch."""

    at: float
    text: str


def bars(label: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Bars side by side: for each group (a server) one bar of each series (expected, observed)."""
    with _drawing(label, width=7, height=0.5 + 0.35 * len(groups)) as (axes, svg):
        thick = 0.8 / max(1, len(series))
        for number, (name, values) in enumerate(series.items()):
            places = [at + number * thick for at in range(len(groups))]
            axes.barh(places, values, thick, label=name, color=PALETTE[number % len(PALETTE)])
        middle = thick * (len(series) - 1) / 2
        axes.set_yticks([at + middle for at in range(len(groups))], list(groups))
        axes.invert_yaxis()
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return svg[0]


def histogram(label: str, unit: str, series: Mapping[str, Sequence[float]]) -> str:
    """How the values of each series are distributed, on a logarithmic scale in `unit`."""
    with _drawing(label) as (axes, svg):
        known = {name: [value for value in values if value > 0] for name, values in series.items()}
        known = {name: values for name, values in known.items() if values}
        edges = _edges([value for values in known.values() for value in values])
        for number, (name, values) in enumerate(known.items()):
            colour = PALETTE[number % len(PALETTE)]
            axes.hist(values, edges, histtype="step", label=name, color=colour, linewidth=1.5)
        if known:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.legend(loc="upper right")
        axes.set_xlabel(unit)
        axes.set_ylabel("count")
    return svg[0]


def timeline(
    label: str, lanes: Mapping[str, Sequence[tuple[float, int]]], marks: Sequence[Mark]
) -> str:
    """Requests in flight over the seconds of a run, a lane for each backend, with its marks.

    A lane is a step function: a list of moments, each with the number in flight from then on. Of a
    lane with many steps, each column shows the highest number.
    """
    with _drawing(label, width=8, height=0.6 + 0.7 * len(lanes)) as (axes, svg):
        highest = max((count for steps in lanes.values() for _, count in steps), default=0) or 1
        for number, steps in enumerate(lanes.values()):
            floor = len(lanes) - 1 - number
            drawn = highest_by_column(steps)
            moments = [moment for moment, _ in drawn]
            heights = [floor + 0.9 * count / highest for _, count in drawn[:-1]]
            colour = PALETTE[number % len(PALETTE)]
            axes.stairs(heights, moments or [0.0], baseline=floor, fill=True, color=colour)
        axes.set_yticks([at + 0.4 for at in range(len(lanes))], [*lanes][::-1])
        axes.set_ylim(0, max(1, len(lanes)))
        axes.set_xlabel(f"seconds; the highest lane has {highest} requests in flight")
        for mark in marks:
            axes.axvline(mark.at, color=INK, linewidth=0.8, linestyle="dashed")
            axes.text(mark.at, len(lanes), f" {mark.text}", rotation=30, fontsize=8)
    return svg[0]


def highest_by_column(steps: Sequence[tuple[float, int]]) -> Sequence[tuple[float, int]]:
    """A step function of at most COLUMNS + 1 steps: the highest number in each equal part."""
    if len(steps) <= COLUMNS:
        return steps
    first, width = steps[0][0], (steps[-1][0] - steps[0][0]) / COLUMNS
    highest: dict[int, int] = {}
    before = 0
    for moment, count in steps:
        column = int((moment - first) / width) if width else 0
        highest[column] = max(count, highest.get(column, before))
        highest[column + 1] = before = count
    return [(first + column * width, count) for column, count in sorted(highest.items())]


def _edges(values: Sequence[float]) -> list[float]:
    """Forty bins of equal width on a logarithmic scale."""
    if not values:
        return [0.0, 1.0]
    low, high = min(values), max(max(values), min(values) * 1.01)
    return [low * (high / low) ** (step / 40) for step in range(41)]


@contextmanager
def _drawing(label: str, width: float = 7, height: float = 2.4) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; the list holds the finished SVG afterwards."""
    written: list[str] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure.add_subplot(), written
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            metadata={"Date": None, "Creator": None},
        )
    written.append(_inline(buffer.getvalue(), label))


def _inline(svg: str, label: str) -> str:
    """An SVG as part of a page: no prologue, the page's text colour, a label for screen readers."""
    body = svg[svg.index("<svg") :].replace(INK, "currentColor")
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' d="[^"]*"', _to_tenths, body)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    opening = f'<svg role="img" aria-label="{escape(label)}"'
    return body.replace("<svg", opening, 1)


def _to_tenths(path: re.Match[str]) -> str:
    """A path with coordinates in tenths of a pixel, which halves the page."""
    return re.sub(r"(\.\d)\d+", r"\1", path[0])
