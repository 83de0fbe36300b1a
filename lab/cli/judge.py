"""`lab judge`: a verdict from a run's folder."""

from pathlib import Path
from typing import Annotated

import typer

from ..accounts import outcome
from .options import Json, Junit
from .verdicts import conclude


def judge(
    folder: Annotated[Path, typer.Argument(help="A run's folder: .lab/runs/…")],
    as_json: Json = False,
    junit: Junit = None,
) -> None:
    """Recompute a verdict from its run folder; needs no Docker."""
    conclude(outcome.judge(folder), as_json, junit)
