"""`lab judge`: a verdict from a run's folder."""

from pathlib import Path
from typing import Annotated

import typer

from ..accounts import judging
from ..evidence.folder import was_interrupted
from .options import Json, Junit
from .terminal import note
from .verdicts import conclude


def judge(
    folder: Annotated[Path, typer.Argument(help="A run's folder: .lab/runs/…")],
    as_json: Json = False,
    junit: Junit = None,
) -> None:
    """Recompute a verdict from its run folder; needs no Docker."""
    judged = judging.judge(folder)
    if was_interrupted(folder):
        note("the run was interrupted: what had ended by then is judged")
    conclude(judged, as_json, junit)
