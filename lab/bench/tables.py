"""The figures of a bench for people."""

from collections.abc import Iterable, Sequence

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


def bars(found: Iterable[Checked]) -> str:
    """Each target with its median; missed targets are marked."""
    drawn = table("", "bar", "of", "median", "bound")
    for each in found:
        bound = f"{'at most' if each.bar.most else 'at least'} {number(each.bar.bound)}"
        word = "holds" if each.holds else "SHORT"
        drawn.add_row(word, each.bar.what, each.bar.subject, number(each.series.median), bound)
    return text(drawn)


def number(value: float) -> str:
    """A figure with three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
