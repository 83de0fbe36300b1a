"""`lab up`, `down`, `status`, `sbom`: the running lab."""

from typing import Annotated

import typer

from ..backends.llm.profiles import MOST, PROFILES, Limits
from ..experiment import fleet
from ..report import tables
from ..stack import compose
from ..stack.sbom import sbom as bill_of_materials
from .here import this_lab
from .options import Json
from .terminal import progress, say, show


def up(
    backends: Annotated[int, typer.Option(help="Number of backends, 1 to 32.")] = 3,
    profile: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(PROFILES)}; instant is the article's server."),
    ] = None,
    time_scale: Annotated[
        float | None, typer.Option(help="Speed of the backends' clock; 2 is twice real time.")
    ] = None,
    max_num_seqs: Annotated[
        int,
        typer.Option(
            min=0, max=MOST, help="Maximum number of running sequences; 0: the profile's."
        ),
    ] = 0,
    max_num_batched_tokens: Annotated[
        int,
        typer.Option(min=0, max=MOST, help="Maximum number of tokens per step; 0: the profile's."),
    ] = 0,
    kv_blocks: Annotated[
        int,
        typer.Option(min=0, max=MOST, help="Number of KV blocks of 16 tokens; 0: the profile's."),
    ] = 0,
    queue_limit: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST,
            help="Maximum queue length; further requests get 503; 0: the profile's.",
        ),
    ] = 0,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Also start a Prometheus that scrapes the backends.")
    ] = False,
) -> None:
    """Bring the lab up; return when all containers are healthy."""
    lab = compose.from_environment()
    limits = Limits(max_num_seqs, max_num_batched_tokens, kv_blocks, queue_limit)
    with progress(f"starting {backends} backends and nginx"):
        fleet.up(lab, backends, profile, time_scale, limits)
    if metrics:
        with progress("starting Prometheus"):
            fleet.up_metrics(lab)
    say(f"up: {backends} backends behind {lab.front} (lab door {lab.door})")


def down() -> None:
    """Remove the lab's containers, networks and volumes."""
    lab = compose.from_environment()
    with progress("taking the lab down"):
        compose.down(lab)
    say(f'down: nothing of "{lab.project}" is left')


def status(as_json: Json = False) -> None:
    """Show the containers, their addresses and the method."""
    current = fleet.status(this_lab())
    show(current) if as_json else say(tables.status(current))


def sbom() -> None:
    """List the packages in the running images, as CycloneDX JSON."""
    show(bill_of_materials(this_lab()))
