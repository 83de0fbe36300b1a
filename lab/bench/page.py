"""The tables of docs/performance.md, written from the figures of one bench."""

import os
import re
import time
from collections.abc import Iterable, Sequence

from ..errors import UsageError
from .figures import Checked, Series
from .tables import missed, number

BLOCK = re.compile(r"(<!-- bench: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(
    page: str, figures: Sequence[Series], compared: Sequence[Checked], conditions: str
) -> str:
    """The page with the table of each measured section in the section's block.

    A block stands between `<!-- bench: SECTION -->` and `<!-- end -->`; `targets` is the block of
    the targets. `conditions` stand above each table. Blocks of sections that were not measured
    keep their text. UsageError for a page without blocks.
    """
    sections = dict.fromkeys(series.section for series in figures)
    tables = {name: section(s for s in figures if s.section == name) for name in sections}
    if compared:
        tables["targets"] = targets(compared)
    if not BLOCK.search(page):
        raise UsageError("the page has no block to fill", "<!-- bench: SECTION --> … <!-- end -->")
    return BLOCK.sub(
        lambda block: (
            f"{block[1]}{conditions}\n\n{tables[block[2]]}\n{block[3]}"
            if block[2] in tables
            else block[0]
        ),
        page,
    )


def section(figures: Iterable[Series]) -> str:
    """One row for each subject, one column for each kind of figure."""
    rows: dict[str, dict[str, Series]] = {}
    for series in figures:
        rows.setdefault(series.subject, {})[series.what] = series
    # rows with the same columns make one table
    groups: dict[tuple[str, ...], list[str]] = {}
    for subject, cells in rows.items():
        groups.setdefault(tuple(cells), []).append(subject)
    return "\n\n".join(
        markdown(
            ["", *(heading(rows[subjects[0]][what]) for what in columns)],
            [[subject, *(cell(rows[subject][what]) for what in columns)] for subject in subjects],
        )
        for columns, subjects in groups.items()
    )


def targets(compared: Sequence[Checked]) -> str:
    """Every target, and which are missed."""
    rows = [
        [
            target.bar.what,
            target.bar.subject,
            number(target.series.median),
            f"{'≤' if target.bar.most else '≥'} {number(target.bar.bound)}",
            "met" if target.holds else "**missed**",
        ]
        for target in compared
    ]
    return f"{markdown(['target', 'of', 'median', 'bound', ''], rows)}\n\n{missed(compared)}."


def machine(repeats: int, load: float) -> str:
    """The conditions of a bench that starts now."""
    return (
        f"{os.cpu_count()} cores, load average {load:.1f} at the start,"
        f" {time.strftime('%d %b %Y')}:"
        f" medians of {repeats} repeat{'s' * (repeats > 1)} ± half the spread."
    )


def heading(series: Series) -> str:
    """What a column holds, and its unit."""
    return f"{series.what}, {series.unit}" if series.unit else series.what


def cell(series: Series) -> str:
    """The median; with repeats also half the distance from the lowest to the highest value."""
    if len(series.values) == 1:
        return number(series.median)
    return f"{number(series.median)} ± {number((max(series.values) - min(series.values)) / 2)}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
