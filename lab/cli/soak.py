"""`lab soak`: random faults under traffic."""

from typing import Annotated

import typer

from ..experiment.soak import soak as run_soak
from .here import this_lab
from .options import Json, NextUpstream
from .terminal import exit_unless, note, say, show


def soak(
    seconds: Annotated[float, typer.Option(help="Duration in seconds.")] = 600.0,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the random steps; default: drawn and printed.")
    ] = None,
    next_upstream: NextUpstream = "",
    as_json: Json = False,
) -> None:
    """Inject random faults; account for every request.

    The faults, switches of the method and reloads happen while requests are in flight.
    """
    result = run_soak(this_lab(), seconds, seed, note, next_upstream=next_upstream)
    show(result.as_dict()) if as_json else say(result)
    exit_unless(result.holds)
