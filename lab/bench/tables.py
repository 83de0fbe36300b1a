"""The figures of a bench for people."""

from collections.abc import Sequence

from ..report.tables import table, text
from .figures import Checked, Series


def figures(all_series: Sequence[Series]) -> str:
    """Each series with its median and its spread, one section after the other."""
    parts = []
    for section in dict.fromkeys(series.section for series in all_series):
        drawn = table(section, "of", "median", "lowest", "highest", "repeats", "unit")
        for series in all_series:
            if series.section == section:
                numbers = map(number, (series.median, min(series.values), max(series.values)))
                repeats = str(len(series.values))
                drawn.add_row(series.what, series.subject, *numbers, repeats, series.unit)
        parts.append(text(drawn))
    return "\n\n".join(parts)


def targets(compared: Sequence[Checked]) -> str:
    """Each target with its median, and how many are missed."""
    drawn = table("result", "target", "of", "median", "bound")
    for target in compared:
        bound = f"{'at most' if target.bar.most else 'at least'} {number(target.bar.bound)}"
        result = "met" if target.holds else "missed"
        drawn.add_row(
            result, target.bar.what, target.bar.subject, number(target.series.median), bound
        )
    return f"{text(drawn)}\n\n{missed(compared)}"


def missed(compared: Sequence[Checked]) -> str:
    """How many targets are missed, and which."""
    names = [f"{target.bar.what}: {target.bar.subject}" for target in compared if not target.holds]
    if not names:
        return f"all {len(compared)} targets met"
    return f"{len(names)} of {len(compared)} targets missed: {'; '.join(names)}"


def number(value: float) -> str:
    """A figure with three significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
