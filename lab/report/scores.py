"""Tables of simulated runs and of scorecards."""

from typing import TYPE_CHECKING

from ..accounts import figures
from .tables import rows

if TYPE_CHECKING:
    from ..simulate.simulation import Simulated

MOST_ROWS = 32  # backends that a table shows one by one


def simulated(run: "Simulated") -> str:
    """A simulated run's figures as a table and a picture."""
    few = len(run.figures.backends) < MOST_ROWS
    tables = [figures.throughput(run.figures), figures.latency(run.figures)]
    drawn = [rows(lines if few else [lines[0], lines[-1]]) for lines in tables]
    shown = [figures.picture(run.figures), ""] if few else []
    fair = run.figures.fairness
    size = f"{run.scenario} by {run.method}, simulated: {run.backends:,} backends, seed {run.seed}"
    shares = (fair.requests, fair.tokens, fair.busy)
    jain = ", ".join(
        f"{name} {share:.3f}"
        for name, share in zip(("requests", "tokens", "busy time"), shares, strict=True)
        if share is not None
    )
    return "\n".join(
        [size, "", drawn[0], "", drawn[1], "", *shown, f"fairness: {jain}", f"{run.folder}", ""]
    )
