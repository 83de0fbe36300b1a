"""`lab power`: how reliable verdicts are."""

from typing import Annotated

import typer

from ..errors import UsageError
from ..nginxconf import methods
from ..verdict import power as simulated
from .options import Json, Weights
from .terminal import say, show


def power(
    method: Annotated[str, typer.Argument(help="A method; `lab methods` lists them.")],
    requests: Annotated[
        int, typer.Option("-n", help="Requests per run; 0: as many as a PASS needs.", min=0)
    ] = 0,
    servers: Annotated[
        int, typer.Option(help="Number of servers, all of equal weight.", min=2, max=32)
    ] = 3,
    weights: Weights = "",
    seeds: Annotated[int, typer.Option(help="Simulated runs of each nginx.", min=1)] = 10,
    trace: Annotated[
        bool, typer.Option(help="Judge with nginx's order of picks, as in its debug log.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Measure how reliable the verdicts on a method are.

    Simulates correct and faulty nginx instances and counts the verdicts on each.
    """
    name = methods.method(method).name
    cells = simulated.matrix(name, read(weights, servers), seeds, requests, traced=trace)
    if as_json:
        show({"method": method, "seeds": seeds, "cells": [cell.as_dict() for cell in cells]})
        return
    for line in simulated.table(cells):
        say(line)


def read(weights: str, servers: int) -> tuple[int, ...]:
    """The weights of the servers; UsageError if they are not whole numbers from 1 to 999."""
    if not weights:
        return (1,) * servers
    parts = weights.split(",")
    if len(parts) < 2 or not all(part.isdecimal() and 0 < int(part) < 1000 for part in parts):
        raise UsageError(f'weights "{weights}" are not numbers from 1 to 999', "--weights 3,2,1")
    return tuple(map(int, parts))
