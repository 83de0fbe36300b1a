"""`lab report`: run folders as one page."""

from pathlib import Path
from typing import Annotated

import typer

from ..report import page, sections
from .options import Json, check_writable
from .terminal import note, say, show


def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="The page's title.")] = "nginx-llm-lab report",
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a CI job's summary.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page about run folders.

    It has their verdicts, figures and timelines, needs no network and contains no script.
    --json prints its numbers instead.
    """
    if not (markdown or as_json):
        check_writable("--output", output)
    content = sections.page(title, folders)
    for fault in content.unreadable:
        note(f"left out: {fault}")
    if as_json:
        show(content.as_dict())
    elif markdown:
        say(page.markdown(content))
    else:
        output.write_text(page.html(content))
        note(f"{output}: {len(content.sections)} runs, {output.stat().st_size / 1e6:.1f} MB")
