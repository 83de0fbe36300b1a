"""`lab logs` and `lab runs`: logs and run folders."""

import shutil
from typing import Annotated

import typer

from ..evidence import folder
from ..paths import runs_folder
from ..report import tables
from ..stack.logs import log_lines
from .here import this_lab
from .options import Json
from .terminal import say, show


def logs(
    service: Annotated[str, typer.Argument(help="nginx, backend-N or load.")] = "nginx",
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Keep printing new lines.")
    ] = False,
) -> None:
    """Print a container's log; nginx's by default."""
    for line in log_lines(this_lab(), service, follow=follow):
        say(line)


def runs(
    prune: Annotated[bool, typer.Option("--prune", help="Remove old run folders.")] = False,
    keep: Annotated[int, typer.Option(min=0, help="Number of folders that --prune keeps.")] = 10,
    as_json: Json = False,
) -> None:
    """List the run folders, which `lab judge` reads, oldest first."""
    listed = folder.list_runs(runs_folder())
    if prune:
        for run in listed[: max(0, len(listed) - keep)]:
            shutil.rmtree(run.path)
        listed = listed[max(0, len(listed) - keep) :]
    show([run.as_dict() for run in listed]) if as_json else say(tables.runs(listed))
