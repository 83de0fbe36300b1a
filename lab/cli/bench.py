"""`lab bench`: how fast the lab is."""

from typing import Annotated

import typer

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
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of each, by turns.")] = 5,
    check: Annotated[
        bool, typer.Option(help="Compare with the stated bars; exit 1 where one fell short.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the lab beside the article's stack, an upper bound, HAProxy and awk, by turns."""
    from ..bench import run, tables
    from ..bench.bars import BARS
    from ..bench.figures import as_dict, checked

    found = list(run.measure(sections or (), quick, repeats, warn))
    compared = checked(found, BARS) if check else []
    if as_json:
        show(as_dict(found, compared))
    else:
        say(tables.figures(found))
        if check:
            say("\n" + tables.bars(compared))
    exit_unless(all(each.holds for each in compared))
