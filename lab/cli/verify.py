"""`lab verify`: the user's own nginx.conf."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..report.github import annotations, summary
from ..report.junit import write_junit
from ..verify.result import Verification
from ..verify.verification import verify as judge_conf
from .options import Json, Junit, Seed
from .terminal import exit_unless, note, say, show


def tell_github(verification: Verification) -> None:
    """Print annotations; in a GitHub job, also add the verdicts to the job's summary."""
    data = verification.as_dict()
    say("\n".join(annotations(data)))
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(file).open("a") as summary_file:
            summary_file.write(summary(data))


def verify(
    conf: Annotated[
        Path, typer.Argument(help="An nginx.conf, or - for stdin; its includes are followed.")
    ],
    upstream: Annotated[list[str], typer.Option(help="Judge only this upstream; repeatable.")] = [],  # noqa: B006 - typer copies it
    assume: Annotated[
        list[str],
        typer.Option(
            help="Assume that this host, file or module (a pattern) exists in production;"
            " repeatable."
        ),
    ] = [],  # noqa: B006 - typer copies it
    allow_unsure: Annotated[
        bool, typer.Option("--allow-unsure", help="Exit with 0 unless a verdict is FAIL.")
    ] = False,
    github: Annotated[
        bool, typer.Option("--github", help="Print GitHub annotations and write the job summary.")
    ] = False,
    seed: Seed = 1,
    as_json: Json = False,
    junit: Junit = None,
) -> None:
    """Run your own nginx.conf and judge each upstream.

    Stub backends answer for every server. The output lists what the lab cannot reproduce:
    certificates, resolvers, missing includes and the like.
    """
    verification = judge_conf(conf, seed=seed, assumed=assume, only=upstream, on_progress=note)
    if junit:
        write_junit(verification.cases(), junit)
    show(verification.as_dict()) if as_json else say(verification)
    if github:
        tell_github(verification)
    exit_unless(verification.accepted(allow_unsure=allow_unsure))
