"""Where acting and computing meet."""

from lab.experiment.stand import choose, dotted, refit, save, saved, status, up, use
from lab.experiment.trial import (
    Bench,
    Counts,
    Outcome,
    bench,
    both_services,
    count_lab,
    demo,
    fresh_folder,
    judge,
    observe_plan,
    run,
    run_ab,
    run_plan,
    short,
)

__all__ = [
    "Bench",
    "Counts",
    "Outcome",
    "bench",
    "both_services",
    "choose",
    "count_lab",
    "demo",
    "dotted",
    "fresh_folder",
    "judge",
    "observe_plan",
    "refit",
    "run",
    "run_ab",
    "run_plan",
    "save",
    "saved",
    "short",
    "status",
    "up",
    "use",
]
