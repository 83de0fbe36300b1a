"""The command `lab`: words in, one call of the lab, a table or JSON out."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import LabError, UsageError
from .stack import compose
from .stack.compose import Lab

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "A lab for nginx load balancing of LLM services: it predicts what nginx will do, runs real"
        " traffic, and says PASS, FAIL or UNSURE.\n\nStart with: lab up; lab run round_robin."
        "\n\nExit codes: 0 the claim holds, 1 it does not (or cannot be told), 2 wrong usage,"
        " 3 the lab could not run."
    ),
)

Json = Annotated[bool, typer.Option("--json", help="Print data for programs.")]
MethodName = Annotated[str, typer.Argument(help="A method: `lab methods` lists them.")]
Weights = Annotated[str, typer.Option(help="One weight a backend: 3,2,1.")]
Key = Annotated[str, typer.Option(help="What hash and hash_consistent hash: '$arg_user'.")]
Measure = Annotated[str, typer.Option(help="What least_time measures: header or last_byte.")]
Parameters = Annotated[
    list[str],
    typer.Option(
        "--server-params",
        help="Server parameters, for all ('max_fails=3') or one ('backend-2: down'); repeatable.",
    ),
]
NextUpstream = Annotated[
    str, typer.Option(help="When to try the next server: 'error timeout http_500 non_idempotent'.")
]
Zone = Annotated[
    bool, typer.Option(help="Workers share their turns; without it each counts alone.")
]
Keepalive = Annotated[bool, typer.Option(help="Keep connections to the backends open.")]


def main() -> None:
    """Run the command; a LabError becomes two lines and an exit code, never a traceback."""
    try:
        app()
    except UsageError as error:
        fail(error, 2)
    except LabError as error:
        fail(error, 3)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(error: LabError, code: int) -> None:
    """Say what went wrong on stderr and leave."""
    typer.echo(str(error), err=True)
    sys.exit(code)


@app.callback()
def options(
    project: Annotated[str, typer.Option(envvar="LAB_PROJECT", help="Compose project.")] = "",
    port: Annotated[str, typer.Option(envvar="LAB_PORT", help="Front door.")] = "",
    door_port: Annotated[str, typer.Option(envvar="LAB_DOOR_PORT", help="Lab door.")] = "",
) -> None:
    """Two labs side by side differ in these three."""
    for name, value in (("PROJECT", project), ("PORT", port), ("DOOR_PORT", door_port)):
        if value:
            os.environ[f"LAB_{name}"] = value


def this_lab() -> Lab:
    """The lab that options and environment name, with the ports it runs on if it does."""
    return compose.running(compose.from_environment())


def show(data: Any) -> None:
    """Print data as JSON."""
    typer.echo(json.dumps(data, indent=2, default=str))


@contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Any]:
    """A progress bar on stderr while something runs; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(text, total=total)
        yield lambda *_: bar.advance(task)


# --- the lab ------------------------------------------------------------------------------


@app.command()
def up(
    backends: Annotated[int, typer.Option(help="How many, 1 to 32.")] = 3,
    profile: Annotated[
        str | None,
        typer.Option(help="instant (the article's server), h100-8b, l40s-8b, slow-8b, cpu-small."),
    ] = None,
    time_scale: Annotated[
        float | None, typer.Option(help="2 runs them twice as fast as life.")
    ] = None,
) -> None:
    """Bring the lab up; return when everything in it is healthy."""
    from .experiment import fleet

    lab = compose.from_environment()
    with progress(f"starting {backends} backends and nginx"):
        fleet.up(lab, backends, profile, time_scale)
    typer.echo(f"up: {backends} backends behind {lab.front} (lab door {lab.door})")


@app.command()
def down() -> None:
    """Take the lab down: no container, network or volume stays."""
    lab = compose.from_environment()
    with progress("taking the lab down"):
        compose.down(lab)
    typer.echo(f'down: nothing of "{lab.project}" is left')


@app.command()
def status(as_json: Json = False) -> None:
    """What runs, where, and by which method."""
    from .experiment import fleet
    from .report import tables as report

    found = fleet.status(this_lab())
    show(found) if as_json else typer.echo(report.status(found))


@app.command()
def methods(as_json: Json = False) -> None:
    """The methods, each with its directive and when to use it."""
    from .nginxconf import methods as known
    from .report import tables as report

    found = known.methods()
    if as_json:
        show(
            [
                {
                    "name": m.name,
                    "directive": m.directive,
                    "about": " ".join(m.about),
                    "needs_nginx": ".".join(map(str, m.needs)) if any(m.needs) else None,
                }
                for m in found.values()
            ]
        )
        return
    typer.echo(report.methods(found.values()))


@app.command()
def use(
    method: MethodName,
    weights: Weights = "",
    key: Key = "",
    measure: Measure = "",
    server_params: Parameters = [],  # noqa: B006 - typer copies it
    next_upstream: NextUpstream = "",
    zone: Zone = True,
    keepalive: Keepalive = True,
    as_json: Json = False,
) -> None:
    """Switch the method; return when only new workers answer. No request is lost by it."""
    from .experiment import fleet

    lab = this_lab()
    choice = chosen(
        lab, method, weights, key, measure, server_params, next_upstream, zone, keepalive
    )
    switch = fleet.use(lab, choice)
    if as_json:
        show({"method": method, "seconds": round(switch.seconds, 3), "finishing": switch.finishing})
        return
    left = f"; {switch.finishing} old workers finish their answers" if switch.finishing else ""
    typer.echo(f"{method} serves after {switch.seconds:.2f} s{left}")


def chosen(
    lab: Lab,
    method: str,
    weights: str,
    key: str,
    measure: str,
    server_params: list[str],
    next_upstream: str,
    zone: bool,
    keepalive: bool,
) -> Any:
    """The words of `use` and `run` as a Choice for the backends that run."""
    from .experiment import fleet
    from .nginxconf import methods as known

    return fleet.choose(
        lab,
        known.method(method).name,
        weights=known.parse_weights(weights),
        key=key,
        measure=measure,
        parameters=known.parse_parameters(server_params),
        next_upstream=next_upstream,
        zone=zone,
        keepalive=keepalive,
    )


# --- traffic and counting -----------------------------------------------------------------


@app.command()
def ab(
    path: Annotated[str, typer.Argument(help="What to ask for.")] = "/",
    requests: Annotated[int, typer.Option("-n", help="How many requests.")] = 1000,
    concurrency: Annotated[int, typer.Option("-c", help="How many at a time.")] = 10,
    keepalive: Annotated[bool, typer.Option("-k", help="Keep connections open.")] = False,
    post: Annotated[Path | None, typer.Option(help="A file to POST.")] = None,
    content_type: Annotated[
        str, typer.Option("--type", "-T", help="Its type.")
    ] = "application/json",
    header: Annotated[list[str], typer.Option("-H", help="A header; repeatable.")] = [],  # noqa: B006 - typer copies it
    both: Annotated[bool, typer.Option(help="POST /chat, then POST /completions.")] = False,
    explain: Annotated[bool, typer.Option(help="Say what each figure means.")] = False,
    as_json: Json = False,
) -> None:
    """ApacheBench from the load container through the lab door; its figures and the split."""
    from .experiment import run
    from .report import tables as report
    from .traffic import ab as traffic

    lab = this_lab()
    call = traffic.Ab(
        requests,
        concurrency,
        keepalive,
        path,
        traffic.body_of(post) if post else None,
        content_type,
        tuple(header),
    )
    calls = run.both_services(call) if both else [call]
    found = []
    for each in calls:
        with progress(f"ab -n {each.requests} -c {each.concurrency} {each.path}"):
            found.append(run.bench(lab, each))
    show([one.as_dict() for one in found]) if as_json else typer.echo(
        report.benches(found, explain)
    )


@app.command()
def split(
    file: Annotated[
        str,
        typer.Argument(
            help="A log, or - for stdin; without: what is piped in, else the lab's own log."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Count which server answered how often: the lab's log, the article's, any `to: ADDRESS`."""
    from .evidence.split import count_file

    if file or stdin_is_given():
        counted = count_file(file or "-")
    else:
        from .experiment import run

        counted = run.count_lab(this_lab())
    show(counted.as_dict()) if as_json else typer.echo(str(counted))


def stdin_is_given() -> bool:
    """Whether somebody pipes or redirects a log in; a terminal or /dev/null is nobody."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


# --- verdicts -----------------------------------------------------------------------------


@app.command()
def run(
    method: MethodName,
    requests: Annotated[int, typer.Option("-n", help="How many requests.")] = 1000,
    concurrency: Annotated[
        int, typer.Option("-c", help="How many at a time; 0: as the method needs.")
    ] = 0,
    by_ab: Annotated[bool, typer.Option("--ab", help="With ab, whatever the method.")] = False,
    ab_keeps: Annotated[bool, typer.Option("-k", help="ab keeps its connections open.")] = False,
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 1,
    weights: Weights = "",
    key: Key = "",
    measure: Measure = "",
    server_params: Parameters = [],  # noqa: B006 - typer copies it
    next_upstream: NextUpstream = "",
    zone: Zone = True,
    keepalive: Keepalive = True,
    as_json: Json = False,
    junit: Annotated[Path | None, typer.Option(help="Write the verdict as JUnit XML.")] = None,
) -> None:
    """Switch, send the traffic that the method needs, count, predict, judge: one verdict."""
    from .experiment import run
    from .report import tables as report
    from .traffic import ab as traffic

    lab = this_lab()
    choice = chosen(
        lab, method, weights, key, measure, server_params, next_upstream, zone, keepalive
    )
    with progress(f"{requests} requests by {method}", requests) as advance:
        call = traffic.Ab(requests, concurrency or min(10, requests), ab_keeps)
        outcome = run.run(lab, choice, call, by_ab, seed, concurrency, advance)
    conclude([outcome], as_json, junit, report)


@app.command()
def judge(folder: Path, as_json: Json = False, junit: Path | None = None) -> None:
    """Recompute a run's verdict from its folder; needs no Docker."""
    from .accounts.outcome import judge as judged
    from .report import tables as report

    conclude([judged(folder)], as_json, junit, report)


def conclude(outcomes: list[Any], as_json: bool, junit: Path | None, report: Any) -> None:
    """Print verdicts, write JUnit, leave with 0 only where every claim holds."""
    if junit:
        report.write_junit([one.case() for one in outcomes], junit)
    if as_json:
        show([one.as_dict() for one in outcomes] if len(outcomes) > 1 else outcomes[0].as_dict())
    else:
        typer.echo("\n".join(report.outcome(one) for one in outcomes))
    if not all(one.holds for one in outcomes):
        raise typer.Exit(1)


@app.command()
def demo(
    requests: Annotated[int, typer.Option("-n", help="Requests a method.")] = 1000,
) -> None:
    """Bring the lab up and show every method under ab, with its split and verdict."""
    from .experiment import fleet, run
    from .report import tables as report

    lab = compose.from_environment()
    fleet.up(lab)
    table = report.DemoTable()
    outcomes = []
    for outcome in run.demo(lab, requests):
        typer.echo(table.row(outcome))
        outcomes.append(outcome)
    typer.echo(report.what_next(lab.front))
    if any(one.verdict.word == "FAIL" for one in outcomes):
        raise typer.Exit(1)


# --- the article's clients ----------------------------------------------------------------


@app.command()
def chat(
    message: str,
    stream: Annotated[bool, typer.Option(help="Token by token, from the OpenAI API.")] = False,
    as_json: Json = False,
) -> None:
    """One chat through the front door, as the article's client does it."""
    from .traffic.clients import SyncClient

    if stream:
        pieces = SyncClient(this_lab().front).chat_stream(message)
        if as_json:
            show([str(piece) for piece in pieces])
            return
        for piece in pieces:
            typer.echo(piece, nl=False)
        typer.echo()
        return
    answer = SyncClient(this_lab().front).chat(message)
    show(answer) if as_json else typer.echo(f"{answer['response']}  ({answer['server']})")


@app.command()
def complete(text: str, as_json: Json = False) -> None:
    """One completion through the front door, as the article's client does it."""
    from .traffic.clients import SyncClient

    answer = SyncClient(this_lab().front).completions(text)
    lines = [choice["text"] for choice in answer["completions"]]
    show(answer) if as_json else typer.echo("\n".join([*lines, f"({answer['server']})"]))


@app.command()
def stress(
    chats: Annotated[int, typer.Option(help="Chats at once.")] = 100,
    completions: Annotated[int, typer.Option(help="Completions at once.")] = 100,
    streams: Annotated[int, typer.Option(help="Streamed chats at once.")] = 0,
    as_json: Json = False,
) -> None:
    """All calls at once through the front door; every one answered, and by whom."""
    from .traffic.stress import stress as call_all

    report = call_all(this_lab().front, chats, completions, streams)
    show(report.as_dict()) if as_json else typer.echo(str(report))
    if not report.complete:
        raise typer.Exit(1)


# --- prediction without Docker ------------------------------------------------------------


@app.command()
def predict(
    method: Annotated[str, typer.Argument(help="A method; with --conf the config says it.")] = "",
    more: Annotated[list[str], typer.Argument(help="Further servers.")] = [],  # noqa: B006 - typer copies it
    servers: Annotated[
        list[str],
        typer.Option(help="Servers as nginx writes them: 'a:1 weight=3,b:1 down'; repeatable."),
    ] = [],  # noqa: B006 - typer copies it
    conf: Annotated[Path | None, typer.Option(help="An nginx config to read.")] = None,
    upstream: Annotated[str, typer.Option(help="Which upstream, if it has several.")] = "",
    weights: Annotated[str, typer.Option(help="One weight a server: 3,2,1.")] = "",
    key: Key = "",
    measure: Measure = "header",
    zone: Zone = True,
    requests: Annotated[
        str, typer.Option(help="Requests, one JSON object a line; - is stdin.")
    ] = "-",
) -> None:
    """Say which server nginx picks for each request: a JSON line in, a JSON line out.

    A request is an object with any of uri, client_ip, method, headers, body, key, t, start,
    duration and fail: {"uri": "/chat", "fail": {"a:1": "refused"}}.
    """
    from .nginxconf import methods as known
    from .nginxconf import upstream as reader
    from .nginxconf import variables
    from .oracle import prediction as engine

    if bool(conf) == bool(method):
        raise UsageError(
            "a method or a config, not both and not neither",
            "lab predict hash --servers a:1,b:1 --requests FILE, or --conf nginx.conf",
        )
    if conf:
        group = reader.read(conf, upstream or None)
        scope = variables.read(conf, group.name)
    else:
        texts = [text.strip() for each in (*servers, *more) for text in each.split(",")]
        texts = known.weighted(texts, known.parse_weights(weights))
        group = reader.from_options(method, texts, key or None, measure=measure, zone=zone)
        maps = known.FOLDER / f"{method}.conf"
        scope = (
            variables.read(maps, group.name)
            if known.method(method).http
            else variables.Variables(upstream=group.name)
        )
    with opened(requests) as lines:
        engine.predict_lines(
            group, lines, sys.stdout.buffer, scope, source="stdin" if requests == "-" else requests
        )


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """A file's bytes, or stdin's for "-"; UsageError where it cannot be read."""
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as stream:
            yield stream
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", "--requests with a file of JSON lines"
        ) from None


# --- somebody's own configuration ---------------------------------------------------------


@app.command()
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
    seed: Annotated[int, typer.Option(help="The same seed sends the same requests.")] = 1,
    as_json: Json = False,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
) -> None:
    """Serve your own nginx.conf, a stand-in behind every server line, and judge each upstream.

    What cannot be honoured (certificates, resolvers, missing includes …) is listed.
    """
    from .report import tables as report
    from .verify.verification import verify as judge_conf

    found = judge_conf(
        conf,
        seed=seed,
        assumed=assume,
        only=upstream,
        on_progress=lambda text: typer.echo(text, err=True),
    )
    if junit:
        report.write_junit(found.cases(), junit)
    show(found.as_dict()) if as_json else typer.echo(str(found))
    if not found.accepted(allow_unsure=allow_unsure):
        raise typer.Exit(1)


# --- LLM workloads ------------------------------------------------------------------------


@app.command()
def scenarios(as_json: Json = False) -> None:
    """The scenarios that come with the lab."""
    from .report import tables as report
    from .traffic import scenario as known

    found = [known.load(name) for name in known.names()]
    if as_json:
        show([{"name": each.name, "about": each.about} for each in found])
    else:
        typer.echo(report.scenarios(found))


@app.command()
def load(
    scenario: Annotated[str, typer.Argument(help="A name from `lab scenarios`, or a YAML file.")],
    method: Annotated[str, typer.Option(help="Balance by it; without, by what serves.")] = "",
    weights: Weights = "",
    key: Key = "",
    measure: Measure = "",
    duration: Annotated[float, typer.Option(help="Seconds, in place of the scenario's.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Send an LLM workload to the scenario's fleet; TTFT, ITL, goodput, fairness, agreement."""
    from .experiment import load
    from .report import tables as report

    lab = this_lab()
    wanted = load.shortened(scenario, duration)
    choice = load.blank(method, weights, key, measure) if method else None
    with load_progress(wanted.name) as advance:
        loaded = load.load(lab, wanted, choice, advance)
    show(loaded.as_dict()) if as_json else typer.echo(report.loaded(loaded))
    if not loaded.holds:
        raise typer.Exit(1)


@app.command()
def compare(
    scenario: Annotated[str, typer.Argument(help="A name from `lab scenarios`, or a YAML file.")],
    methods: Annotated[
        str, typer.Option(help="Methods, with commas between.")
    ] = "round_robin,least_conn,least_time",
    repeats: Annotated[int, typer.Option(help="How often each.")] = 3,
    duration: Annotated[float, typer.Option(help="Seconds, in place of the scenario's.")] = 0.0,
    as_json: Json = False,
) -> None:
    """One scenario by several methods, by turns: median of each figure, lowest to highest."""
    from .experiment import load
    from .report import tables as report

    lab = this_lab()
    wanted = load.shortened(scenario, duration)
    choices = [load.blank(name.strip()) for name in methods.split(",")]
    runs = []
    for turn in range(repeats):
        for choice in choices:
            with load_progress(f"{choice.method} {turn + 1}/{repeats}") as advance:
                runs.append(load.load(lab, wanted, choice, advance))
    found = load.compare(runs)
    show([asdict(each) for each in found]) if as_json else typer.echo(
        report.compared(wanted.name, found)
    )


@contextmanager
def load_progress(text: str) -> Iterator[Any]:
    """A progress bar that the generator moves."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(text, total=None)
        yield lambda seen: bar.update(task, completed=seen.done, total=seen.total)


# --- faults -------------------------------------------------------------------------------


@app.command()
def fault(
    service: Annotated[str, typer.Argument(help="backend-N, all (backends), or nginx.")],
    kind: Annotated[str, typer.Argument(help="What to do to it, one of those above.")],
    value: Annotated[
        float | None,
        typer.Option(
            help="The factor of slow (4), the share of error_rate (1), the tokens of a drop (1)."
        ),
    ] = None,
) -> None:
    """Break something; `lab heal` mends it.

    Anything can be hit by kill (SIGKILL), stop (SIGTERM), restart (a backend: at another address),
    pause (frozen) and cut (off the network); nginx also by reload.

    A backend plays slow, error_rate, hang, drop (inside an answer), malformed_json and
    refuse_health. docs/faults.md says what each does to a GET, a POST and a stream.
    """
    from .stack import faults

    faults.fault(this_lab(), service, kind, value)
    typer.echo(f"{service}: {kind}{'' if value is None else f' {value:g}'}; mend it with: lab heal")


@app.command()
def heal(service: Annotated[str, typer.Argument(help="One service, or all.")] = "all") -> None:
    """Mend whatever is broken; return when everything is healthy."""
    from .stack import faults

    done = faults.heal(this_lab(), service)
    typer.echo("\n".join(done) or "nothing was broken")


@app.command()
def soak(
    seconds: Annotated[float, typer.Option(help="How long.")] = 600.0,
    seed: Annotated[int | None, typer.Option(help="Do again what a printed seed did.")] = None,
    next_upstream: NextUpstream = "",
    as_json: Json = False,
) -> None:
    """Random faults, switches and reloads under traffic; every request accounted for."""
    from .experiment.soak import soak as run_soak

    found = run_soak(
        this_lab(),
        seconds,
        seed,
        lambda text: typer.echo(text, err=True),
        next_upstream=next_upstream,
    )
    show(found.as_dict()) if as_json else typer.echo(str(found))
    if not found.holds:
        raise typer.Exit(1)


@app.command()
def sbom() -> None:
    """The packages of each running image, as CycloneDX JSON."""
    from .stack.sbom import sbom as listed

    show(listed(this_lab()))
