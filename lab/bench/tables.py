"""The figures of a bench for people."""

from collections.abc import Sequence

from ..report.tables import table, text
from .figures import Checked, Series


def figures(found: Sequence[Series]) -> str:
    """Each series with its median and its spread, one section after the other."""
    parts = []
    for section in dict.fromkeys(series.section for series in found):
        drawn = table(section, "of", "median", "lowest", "highest", "repeats", "unit")
        for it in found:
            if it.section == section:
                numbers = map(number, (it.median, min(it.values), max(it.values)))
                drawn.add_row(it.what, it.subject, *numbers, str(len(it.values)), it.unit)
        parts.append(text(drawn))
    return "\n\n".join(parts)


def targets(compared: Sequence[Checked]) -> str:
    """Each target with its median, and how many are missed."""
    drawn = table("result", "target", "of", "median", "bound")
    for each in compared:
        bound = f"{'at most' if each.bar.most else 'at least'} {number(each.bar.bound)}"
        result = "met" if each.holds else "missed"
        drawn.add_row(result, each.bar.what, each.bar.subject, number(each.series.median), bound)
    return f"{text(drawn)}\n\n{missed(compared)}"


def missed(compared: Sequence[Checked]) -> str:
    """How many targets are missed, and which."""
    names = [f"{each.bar.what}: {each.bar.subject}" for each in compared if not each.holds]
    if not names:
        return f"all {len(compared)} targets met"
    return f"{len(names)} of {len(compared)} targets missed: {'; '.join(names)}"


def number(value: float) -> str:
    """A figure with three significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
