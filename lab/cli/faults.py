"""`lab fault`, `heal`: break a running lab and repair it."""

from typing import Annotated

import typer

from ..stack import faults
from .here import this_lab
from .terminal import say


def fault(
    service: Annotated[str, typer.Argument(help="backend-N, all (backends), or nginx.")],
    kind: Annotated[str, typer.Argument(help="Fault kind; the list is above.")],
    value: Annotated[
        float | None,
        typer.Option(
            help="The factor of slow (4), the share of error_rate (1), the tokens of a drop (1)."
        ),
    ] = None,
) -> None:
    """Break a service; `lab heal` repairs it.

    Every service can have kill (SIGKILL), stop (SIGTERM), restart (a backend: at another address),
    pause (frozen) and cut (off the network); nginx also reload.

    A backend can have slow, error_rate, hang, drop (inside an answer), malformed_json and
    refuse_health. docs/faults.md says what each does to a GET, a POST and a stream.
    """
    faults.fault(this_lab(), service, kind, value)
    say(f"{service}: {kind}{'' if value is None else f' {value:g}'}; repair it with: lab heal")


def heal(service: Annotated[str, typer.Argument(help="One service, or all.")] = "all") -> None:
    """Repair whatever is broken; return when everything is healthy."""
    say("\n".join(faults.heal(this_lab(), service)) or "nothing was broken")
