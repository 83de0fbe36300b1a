"""`lab run`, `ab`, `demo`: traffic through the lab, counted and judged."""

from pathlib import Path
from typing import Annotated

import typer

from ..experiment import fleet
from ..experiment import run as experiment
from ..paths import INSTALLED
from ..report import tables
from ..stack import compose
from ..traffic.ab import Ab, body_of
from ..word import Word
from .here import choice_of, this_lab
from .options import Json, Junit, MethodOptions, Seed, takes_method
from .terminal import exit_unless, note, progress, say, show
from .verdicts import conclude

Header = Annotated[list[str], typer.Option("-H", help="A request header; repeatable.")]


def ab(
    path: Annotated[str, typer.Argument(help="Path to request.")] = "/",
    requests: Annotated[int, typer.Option("-n", help="Number of requests.")] = 1000,
    concurrency: Annotated[int, typer.Option("-c", help="Concurrency.")] = 10,
    keepalive: Annotated[bool, typer.Option("-k", help="Use keep-alive connections.")] = False,
    post: Annotated[Path | None, typer.Option(help="A file to POST.")] = None,
    content_type: Annotated[
        str, typer.Option("--type", "-T", help="Content type of the file.")
    ] = "application/json",
    header: Header = [],  # noqa: B006 - typer copies it
    both: Annotated[bool, typer.Option(help="POST /chat, then POST /completions.")] = False,
    explain: Annotated[bool, typer.Option(help="Explain each figure.")] = False,
    as_json: Json = False,
) -> None:
    """Run ApacheBench; print its figures and the split."""
    lab = this_lab()
    body = body_of(post) if post else None
    call = Ab(requests, concurrency, keepalive, path, body, content_type, tuple(header))
    benches = []
    for call_of_service in experiment.both_services(call) if both else [call]:
        with progress(f"ab -n {requests} -c {concurrency} {call_of_service.path}"):
            benches.append(experiment.bench(lab, call_of_service))
    if as_json:
        show([bench.as_dict() for bench in benches])
    else:
        say(tables.benches(benches, explain))


@takes_method
def run(
    options: MethodOptions,
    requests: Annotated[
        int, typer.Option("-n", min=0, help="Number of requests; 0: as many as a PASS needs.")
    ] = 0,
    concurrency: Annotated[
        int, typer.Option("-c", help="Concurrency; 0: chosen for the method.")
    ] = 0,
    by_ab: Annotated[bool, typer.Option("--ab", help="Use ab for every method.")] = False,
    evidence: Annotated[
        experiment.Source,
        typer.Option(help="Judge by nginx's debug log of its picks (trace), or by its access log."),
    ] = experiment.Source.AUTO,
    ab_keeps: Annotated[bool, typer.Option("-k", help="ab uses keep-alive connections.")] = False,
    seed: Seed = 1,
    as_json: Json = False,
    junit: Junit = None,
) -> None:
    """Test one method against its prediction; print a verdict.

    Switches the method, sends traffic that shows it, and compares each pick of nginx with its
    prediction. The evidence is kept in a run folder.
    """
    lab = this_lab()
    choice = choice_of(lab, options)
    with progress(f"requests by {choice.method}") as advance:
        call = Ab(requests, concurrency or min(10, requests or 10), ab_keeps)
        outcome = experiment.run(
            lab, choice, call, by_ab, seed, concurrency, advance, evidence, note
        )
    conclude(outcome, as_json, junit)


def demo(
    requests: Annotated[
        int, typer.Option("-n", min=0, help="Requests for each method; 0: as many as a PASS needs.")
    ] = 0,
) -> None:
    """Bring the lab up; run every method and print its verdict."""
    lab = compose.from_environment()
    fleet.up(lab)
    table = tables.DemoTable()
    words = []
    for outcome in experiment.demo(lab, requests):
        say(table.row(outcome))
        words.append(outcome.verdict.word)
    say(tables.what_next(lab.front, installed=INSTALLED))
    exit_unless(Word.FAIL not in words)
