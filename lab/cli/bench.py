"""`lab bench`: how fast the lab is."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..bench import page as pages
from ..bench import run, tables
from ..bench.bars import BARS
from ..bench.figures import Series, as_dict, checked
from .options import Json
from .terminal import exit_unless, note, say, show


def bench(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            help="Any of commands, starting, verify, counting, judging, predicting, generator,"
            " services; default: all."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Measure less: under 5 minutes in total instead of about 20.")
    ] = False,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help="Repeats of each measurement; they alternate. Default: 5, --quick: 3."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare with the targets; exit with 1 if one is missed.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="Replace the tables in this page: docs/performance.md.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the lab's own speed.

    Compares it with the article's stack, an upper bound, HAProxy and awk. Ctrl-C ends it early and
    prints what was measured until then.
    """
    text = page.read_text() if page else ""
    times = repeats or (3 if quick else 5)
    load = os.getloadavg()[0]
    figures: list[Series] = []
    interrupted = False
    try:
        figures.extend(run.measure(sections or (), quick, times, note))
    except KeyboardInterrupt:
        note("interrupted: the figures so far")
        interrupted = True
    compared = checked(figures, BARS) if check else []
    if page:
        page.write_text(pages.filled(text, figures, compared, pages.machine(times, load)))
    if as_json:
        show(as_dict(figures, compared))
    else:
        say(tables.figures(figures))
        if check:
            say("\n" + tables.targets(compared))
    if interrupted:
        raise typer.Exit(130)
    exit_unless(all(target.holds for target in compared))
