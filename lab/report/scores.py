"""Tables of simulated runs and of scorecards."""

from typing import TYPE_CHECKING

from ..accounts import figures
from .tables import LOADED, condensed, table, text

if TYPE_CHECKING:
    from ..simulate.simulation import Simulated

MOST_ROWS = 32  # backends that a table shows one by one


def simulated(run: "Simulated") -> str:
    """A simulated run's figures as a table and a picture."""
    drawn = table(*LOADED)
    rows = figures.rows(run.figures)[1:]
    for row in rows if len(rows) <= MOST_ROWS else rows[-1:]:
        drawn.add_row(*condensed(row))
    shown = [figures.picture(run.figures), ""] if len(rows) <= MOST_ROWS else []
    fair = run.figures.fairness
    size = f"{run.scenario} by {run.method}, simulated: {run.backends:,} backends, seed {run.seed}"
    shares = (fair.requests, fair.tokens, fair.busy)
    jain = ", ".join(
        f"{name} {share:.3f}"
        for name, share in zip(("requests", "tokens", "busy time"), shares, strict=True)
        if share is not None
    )
    return "\n".join([size, "", text(drawn), "", *shown, f"fairness: {jain}", f"{run.folder}", ""])
