"""`lab bench`: how fast the lab is."""

from typing import Annotated

import typer

from ..bench import run, tables
from ..bench.bars import BARS
from ..bench.figures import as_dict, checked
from .options import Json
from .terminal import exit_unless, say, show, warn


def bench(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            help="Any of commands, counting, predicting, generator, services; default: all."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Measure less: a few minutes in all.")] = False,
    repeats: Annotated[
        int, typer.Option(min=1, help="Repeats of each measurement; they alternate.")
    ] = 5,
    check: Annotated[
        bool, typer.Option(help="Compare with the targets; exit with 1 if one is missed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the lab's own speed.

    Compares it with the article's stack, an upper bound, HAProxy and awk.
    """
    figures = list(run.measure(sections or (), quick, repeats, warn))
    compared = checked(figures, BARS) if check else []
    if as_json:
        show(as_dict(figures, compared))
    else:
        say(tables.figures(figures))
        if check:
            say("\n" + tables.bars(compared))
    exit_unless(all(bar.holds for bar in compared))
