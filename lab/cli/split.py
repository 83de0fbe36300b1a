"""`lab split`: count a log."""

import os
import stat
import sys
from typing import Annotated

import typer

from ..evidence.split import Count, count_file
from .options import Json
from .terminal import say, show


def split(
    file: Annotated[
        str,
        typer.Argument(help="A log, or - for stdin. Default: piped input, else the lab's own log."),
    ] = "",
    as_json: Json = False,
) -> None:
    """Count how often each server answered, from a log.

    Reads the lab's own log, or any log whose lines have `to: ADDRESS`.
    """
    count = count_file(file or "-") if file or stdin_is_given() else count_of_lab()
    show(count.as_dict()) if as_json else say(count)


def stdin_is_given() -> bool:
    """Whether stdin is a pipe or a file; a terminal or /dev/null is not."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def count_of_lab() -> Count:
    """The split of the lab's own log since the last switch of method."""
    from ..experiment import run  # Docker's library is slow to import; a file needs none of it
    from .here import this_lab

    return run.count_lab(this_lab())
