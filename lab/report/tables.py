"""Results for people: tables."""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ..evidence import ab_report

if TYPE_CHECKING:
    from ..accounts.outcome import AnyOutcome, Loaded, Outcome
    from ..evidence.folder import Listed
    from ..evidence.timeline import Event
    from ..experiment.run import Bench
    from ..nginxconf.methods import Method
    from ..traffic.scenario import Scenario
    from ..whatif.replay import WhatIf

WIDTH = 130
_MOST_NAMED = 5  # backends in one sentence


def text(table: Table) -> str:
    """A table as plain text, as wide as it needs to be."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is a StringIO
    return "\n".join(line.rstrip() for line in lines)


def table(*columns: str) -> Table:
    """An empty table in the lab's style."""
    drawn = Table(box=None, pad_edge=False, header_style="", show_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold", no_wrap=column != columns[-1])
    return drawn


def status(state: Mapping[str, Any]) -> str:
    """The running containers as a table, under a line about the lab."""
    if not state["containers"]:
        return f'lab "{state["project"]}" is not up'
    drawn = table("service", "state", "address", "profile", "time scale", "faults")
    for container in state["containers"]:
        scale = container.get("time_scale")
        limits = (f"{name} {limit}" for name, limit in container.get("limits", {}).items())
        drawn.add_row(
            *(container["service"], container["state"], container["address"]),
            ", ".join((container.get("profile", ""), *limits)),
            f"{scale:g}" if scale else "",  # 0: the backend did not answer
            container.get("faults", ""),
        )
    running = f"on nginx {state['nginx']}" if state["nginx"] else "(nginx is down)"
    lines = [
        f'lab "{state["project"]}": {state["method"]} {running}',
        f"front door {state['front']}, lab door {state['door']}",
        *(f"differs: {sentence}" for sentence in state["differs"]),
        *_missing(state["containers"]),
    ]
    return "\n".join((*lines, "", text(drawn)))


def _missing(containers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line with the next step if the containers of backends were removed."""
    backends = [one for one in containers if one["service"].startswith("backend-")]
    if names := [one["service"] for one in backends if one["state"] == "missing"]:
        yield f"missing: {', '.join(names)}; to start again: lab up --backends {len(backends)}"


def runs(listed: "Sequence[Listed]") -> str:
    """The run folders as a table, or a line saying that there are none."""
    if not listed:
        return "no run folders here"
    drawn = table("folder", "kind", "method", "requests", "kB")
    for run in listed:
        kind = f"{run.kind}, interrupted" if run.interrupted else run.kind
        drawn.add_row(str(run.path), kind, run.method, f"{run.sent:,}", f"{run.size // 1000:,}")
    return text(drawn)


def methods(known: Iterable["Method"]) -> str:
    """The methods with their directives and comments."""
    drawn = table("method", "directive", "what it does, and when to use it")
    for method in known:
        drawn.add_row(method.name, method.directive or "(nginx's default)", " ".join(method.about))
    return text(drawn)


def benches(results: Sequence["Bench"], explain: bool) -> str:
    """The main figures of ab and the split of each call; with `explain`, every figure explained."""
    return "\n\n".join(_explained(bench) if explain else _brief(bench) for bench in results)


def _brief(bench: "Bench") -> str:
    report = bench.report
    lines = [
        f"ab -n {report.complete_requests} -c {report.concurrency_level} {bench.path}",
        f"  {report.requests_per_second:,.0f} requests/s, {report.time_per_request_ms:.3f} ms each,"
        f" {report.failed_requests} failed, {report.non_2xx_responses} not 2xx",
        _percentiles(report.percentiles or {}),
        f"  {bench.split}",
        f"  note: {bench.note}" if bench.note else "",
    ]
    return "\n".join(line for line in lines if line)


def _percentiles(percentiles: Mapping[int, int]) -> str:
    shown = [
        f"{share} % within {percentiles[share]:g} ms" for share in (50, 99) if share in percentiles
    ]
    return f"  {', '.join(shown)}" if shown else ""


def _explained(bench: "Bench") -> str:
    drawn = table("figure", "value", "what it means")
    for figure in ab_report.explain(bench.report):
        drawn.add_row(*(str(part) for part in figure))
    return f"{text(drawn)}\n\n{bench.split}"


def scenarios(known: Iterable["Scenario"]) -> str:
    """The scenarios that come with the lab."""
    drawn = table("scenario", "what it is")
    for scenario in known:
        drawn.add_row(scenario.name, scenario.about)
    return text(drawn)


def outcome(judged: "AnyOutcome") -> str:
    """The outcome of a run folder as text, whichever command wrote it."""
    from ..accounts.outcome import Loaded

    return loaded(judged) if isinstance(judged, Loaded) else str(judged)


def loaded(run: "Loaded") -> str:
    """A scenario's figures and events, and whether every failed request is explained."""
    from ..accounts import figures

    return "\n".join(
        [
            f"{run.scenario} by {run.method}",
            *(f"changed: {change}" for change in run.changed),
            "",
            rows(figures.throughput(run.figures)),
            "",
            rows(figures.latency(run.figures)),
            "",
            *_legend(run),
            "",
            figures.picture(run.figures),
            "",
            *_happened(run),
            *_agreement(run),
            *_machine(run),
            str(run.ledger),
            str(run.verdict),
            str(run.folder),
        ]
    )


def rows(lines: Sequence[Sequence[str]]) -> str:
    """A table of text; the first line names the columns."""
    drawn = table(*lines[0])
    for line in lines[1:]:
        drawn.add_row(*line)
    return text(drawn)


def _legend(run: "Loaded") -> Iterator[str]:
    """Explain the columns that are not self-explanatory."""
    targets = (
        ("TTFT", run.targets.ttft_ms),
        ("TPOT", run.targets.itl_ms),
        ("E2E", run.targets.e2e_ms),
    )
    met = [f", {name} at most {ms:,g} ms" for name, ms in targets if ms is not None]
    yield f"good: answered without an error{''.join(met)}"
    if run.figures.offered_s:
        yield (
            "goodput/s: good requests per second of the"
            f" {run.figures.offered_s:,.1f} s in which requests were sent"
        )
    yield (
        "busy s: sum of the requests' durations at the backend;"
        " ten requests at once for 1 s count as 10 s"
    )


def _happened(run: "Loaded") -> Iterator[str]:
    """The events of the timeline, events that were not reached, and unplanned incidents."""
    for done in run.timeline:
        failed = f", which failed: {done.error}" if done.error else ""
        yield f"at {done.began:.1f} s: {_event(done.event)}{failed}"
    for event in run.skipped:
        yield f"not done: {_event(event)}, planned at {event.at:.1f} s, after the end"
    for incident in run.incidents:
        when = incident.at - run.began
        yield f"at {when:.1f} s: {incident.service} {incident.what}: no event of the scenario"


def _event(event: "Event") -> str:
    """An event of a timeline, written like a command."""
    match event.do:
        case "fault":
            value = "" if event.value is None else f" {event.value:g}"
            return f"fault {event.backend} {event.kind}{value}"
        case "heal":
            return f"heal {event.backend}"
        case "scale":
            return f"scale to {event.backends} backends"
        case "use":
            weights = ",".join(map(str, event.weights))
            return " ".join(filter(None, ("use", event.method, weights)))
    return event.do


def _agreement(run: "Loaded") -> Iterator[str]:
    totals = run.figures
    requests = totals.overall.requests
    if totals.lateness_ms.p99 is not None:
        late = f"{totals.lateness_ms.p99:.1f} ms"
        yield f"99 % of the requests were sent within {late} of their planned time"
    if not totals.findings:
        yield f"client, nginx and backends agree on all {requests:,} requests"
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in totals.findings.items())
    yield f"of {requests:,} requests: {kinds}; {totals.unexplained} unexplained"
    for finding in run.findings[:5]:
        yield f"  {finding.id}: {finding.kind}: {finding.detail}"


def _machine(run: "Loaded") -> Iterator[str]:
    """How late the backends' tokens were, if that distorts the figures; the worst first."""
    late = {g.name: g.late_ms.max or 0.0 for g in run.figures.backends if g.name in run.saturated}
    if not late:
        return
    worst = sorted(late, key=late.__getitem__, reverse=True)
    places = [f"{late[name]:,.0f} ms at {name}" for name in worst[:_MOST_NAMED]]
    more = len(worst) - len(places)
    places += [f"less at {more} others"] if more else []
    yield "this machine was too busy: tokens were sent later than the timing model says,"
    yield f"  by up to {', '.join(places)}; the times above include that delay."
    yield "  The counts of requests and tokens are correct. Repeat the load on an idle machine."


class DemoTable:
    """A table whose rows are printed as they come."""

    columns = (15, 39, 7, 60)

    def __init__(self) -> None:
        self._begun = False

    def row(self, outcome: "Outcome") -> str:
        """The outcome's line; the header before the first."""
        verdict = outcome.verdict
        numbers = re.sub(r"; excludes: .*\)", ")", verdict.numbers)  # `lab judge` shows them
        line = self._line([outcome.method, outcome.traffic, verdict.word, numbers])
        if self._begun:
            return line
        self._begun = True
        return self._line(["method", "traffic", "verdict", "split, and why"]) + "\n" + line

    def _line(self, cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, self.columns, strict=True)]
        return "  ".join(padded).rstrip()


def what_next(front: str, *, installed: bool) -> str:
    """What to try after the demo: a checkout has make targets, an installed package only `lab`."""
    tries = {
        f"curl {front}/": "which backend answers?",
        "make least_conn": "switch the method without losing a request",
        'make ab ARGS="-n 5000 -c 50 -k"': "ApacheBench, and the split that it produced",
        "make run METHOD=hash": "traffic, prediction, verdict",
        ".venv/bin/lab --help": "everything else",
        "make down": "take the lab down completely",
    }
    if installed:
        commands = ("lab use least_conn", "lab ab -n 5000 -c 50 -k", "lab run hash", "lab --help")
        tries = dict(zip((f"curl {front}/", *commands, "lab down"), tries.values(), strict=True))
    return "\n".join(["", "try next:", *(f"  {key:<39} {what}" for key, what in tries.items())])


WHATIF = (
    *("method", "requests by server", "most in flight by server", "hottest"),
    *("without it: most in flight", "requests moved"),
)


def whatif(replayed: "WhatIf") -> str:
    """How each method would have spread a log, and what the replay assumes."""
    drawn = table(*WHATIF)
    for spread in replayed.spreads:
        drawn.add_row(
            spread.method,
            _shares(spread.requests),
            _shares(spread.peak),
            spread.hottest,
            str(spread.peak_without),
            f"{spread.moved:.1%}",
        )
    refused = [
        f"no server: {spread.method}, {count:,} requests found all servers down or at max_conns"
        for spread in replayed.spreads
        if (count := replayed.requests - sum(spread.requests.values()))
    ]
    head = f"{replayed.requests:,} requests in {replayed.seconds:,.1f} s"
    lost = f"; malformed lines: {replayed.malformed:,}" if replayed.malformed else ""
    left_out = [f"left out: {name}, {why}" for name, why in replayed.left_out.items()]
    malformed = [f"malformed: {line}" for line in replayed.malformed_lines]
    assumed = [f"assumed: {text}" for text in replayed.assumptions]
    return "\n".join(
        [f"{head}{lost}", "", text(drawn), "", *refused, *left_out, *assumed, *malformed]
    )


def _shares(values: Mapping[str, int]) -> str:
    """The values of up to eight servers; of more, the lowest, the median and the highest."""
    counts = list(values.values())
    if len(counts) <= 8:
        return " ".join(f"{count:,}" for count in counts)
    ordered = sorted(counts)
    return f"{ordered[0]:,} to {ordered[-1]:,}, median {ordered[len(ordered) // 2]:,}"
