"""`lab up`, `down`, `status`, `sbom`: the running lab."""

from typing import Annotated

import typer

from ..backends.llm.profiles import PROFILES
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
) -> None:
    """Bring the lab up; return when all containers are healthy."""
    lab = compose.from_environment()
    with progress(f"starting {backends} backends and nginx"):
        fleet.up(lab, backends, profile, time_scale)
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
