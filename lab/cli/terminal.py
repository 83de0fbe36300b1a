"""Output of the verbs: JSON, coloured verdicts, progress bars on a terminal."""

import json
import os
import re
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from ..word import Word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..traffic.sender import Progress

SCHEMA = 2  # raised when a key is removed or changes its meaning, not for a new key
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COLOURS = {Word.PASS: "green", Word.FAIL: "red", Word.UNSURE: "yellow"}


def show(data: Any) -> None:
    """Print data as JSON; an object begins with the version of its schema (docs/json.md)."""
    if isinstance(data, dict):
        data = {"schema": SCHEMA, **data}
    typer.echo(json.dumps(data, indent=2, default=str))


def say(text: object) -> None:
    """Print text; on a terminal a PASS, FAIL or UNSURE at the start of a line is coloured."""
    no_colour = False if os.environ.get("NO_COLOR") else None
    # echo drops colours if stdout is no terminal
    typer.echo(coloured(visible(str(text))), color=no_colour)


def visible(text: str) -> str:
    """The text with control characters escaped: a client may have sent them to a log."""
    return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def coloured(text: str) -> str:
    """Colour each PASS, FAIL or UNSURE at the start of a line."""
    words = "|".join(Word)
    return re.sub(
        rf"^({words})\b",
        lambda opening: typer.style(opening[1], fg=COLOURS[Word(opening[1])], bold=True),
        text,
        flags=re.MULTILINE,
    )


def note(text: str) -> None:
    """Print a line on stderr: progress, or a remark on the result."""
    typer.echo(visible(text), err=True)


def exit_unless(holds: bool) -> None:
    """Exit with 1 if a claim does not hold."""
    if not holds:
        raise typer.Exit(1)


@contextmanager
def progress(text: str) -> "Iterator[Callable[[Progress], None]]":
    """Show a progress bar if stderr is a terminal; the block gets the function that updates it."""
    with _bar(text) as update:
        yield lambda sent: update(completed=sent.done, total=sent.total)


@contextmanager
def track(text: str) -> "Iterator[Callable[[int], None]]":
    """Show a count of requests if stderr is a terminal; the block gets its update function."""
    with _bar(text, "{task.description}") as update:
        yield lambda count: update(description=f"{text}: {count:,} requests")


@contextmanager
def steps(text: str) -> "Iterator[Callable[[str], None]]":
    """Show the last step if stderr is a terminal; the block gets the function that updates it."""
    with _bar(text, "{task.description}") as update:
        yield lambda step: update(description=f"{text}: {step}")


@contextmanager
def _bar(text: str, line: str = "") -> "Iterator[Callable[..., None]]":
    """The function that updates a progress bar, or a spinner with text and the elapsed time."""
    from rich import progress as rich  # slow to import, and only long verbs draw a bar
    from rich.console import Console

    columns = (rich.SpinnerColumn(), rich.TextColumn(line), rich.TimeElapsedColumn())
    console = Console(stderr=True)
    off = not sys.stderr.isatty()
    with rich.Progress(
        *(columns if line else ()), console=console, transient=True, disable=off
    ) as bar:
        task = bar.add_task(text, total=None)
        yield partial(bar.update, task)
