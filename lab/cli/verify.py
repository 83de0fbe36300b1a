"""`lab verify`: the user's own nginx.conf."""

from pathlib import Path
from typing import Annotated

import typer

from ..report.junit import write_junit
from ..verify.verification import verify as judge_conf
from .options import Json, Junit, Seed
from .terminal import exit_unless, say, show, warn


def verify(
    conf: Annotated[Path, typer.Argument(help="An nginx.conf; its includes are followed.")],
    upstream: Annotated[list[str], typer.Option(help="Judge only this upstream; repeatable.")] = [],  # noqa: B006 - typer copies it
    assume: Annotated[
        list[str],
        typer.Option(help="A host or file that exists where nginx runs; a pattern; repeatable."),
    ] = [],  # noqa: B006 - typer copies it
    allow_unsure: Annotated[
        bool, typer.Option("--allow-unsure", help="Exit with 0 unless a verdict is FAIL.")
    ] = False,
    seed: Seed = 1,
    as_json: Json = False,
    junit: Junit = None,
) -> None:
    """Serve your own nginx.conf, a stand-in behind every server line, and judge each upstream.

    What cannot be honoured (certificates, resolvers, missing includes …) is listed.
    """
    verification = judge_conf(conf, seed=seed, assumed=assume, only=upstream, on_progress=warn)
    if junit:
        write_junit(verification.cases(), junit)
    show(verification.as_dict()) if as_json else say(verification)
    exit_unless(verification.accepted(allow_unsure=allow_unsure))
