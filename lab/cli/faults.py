"""`lab fault`, `heal`: break a running lab and repair it."""

import inspect
from typing import Annotated

import typer

from .. import fault_kinds
from ..experiment import fleet
from ..stack import faults
from .here import this_lab
from .terminal import say


def fault(
    service: Annotated[str, typer.Argument(help="backend-N, all (backends), or nginx.")],
    kind: Annotated[str, typer.Argument(help="Fault kind; the list is above.")],
    value: Annotated[
        float | None,
        typer.Option(help="Value of the fault, if it takes one; the list has the default."),
    ] = None,
) -> None:
    """Break a service; `lab heal` repairs it.

    docs/faults.md says what each kind does to a GET, a POST and a stream.
    """
    faults.fault(this_lab(), service, kind, value)
    say(f"{service}: {kind}{'' if value is None else f' {value:g}'}; repair it with: lab heal")


fault.__doc__ = f"{inspect.cleandoc(str(fault.__doc__))}\n\n{fault_kinds.help_text()}"


def heal(service: Annotated[str, typer.Argument(help="One service, or all.")] = "all") -> None:
    """Repair what `lab fault` broke; return when all is healthy."""
    lab = this_lab()
    done = "\n".join(faults.heal(lab, service))
    if done:
        say(done)
    fleet.refuse_missing(lab)  # of a removed container nothing is left to repair
    if not done:
        say("nothing was broken")
