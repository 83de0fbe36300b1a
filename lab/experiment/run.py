"""One method under traffic: send, collect what every side logged, judge, keep the evidence."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..accounts.outcome import Outcome, judge_run, short
from ..errors import LabError
from ..evidence import ab_report, access_log
from ..evidence.record import Record
from ..evidence.split import Count, Split, count, split
from ..nginxconf import methods
from ..nginxconf.methods import Decides
from ..stack import compose, nginx
from ..stack.compose import Lab
from ..traffic import ab as traffic
from ..traffic import probes, sender, workload
from .collect import Sent, begin
from .fleet import choose, log_mark, saved, use

ANSWER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """Traffic to send: its name, whether requests go one after the other, and how."""

    name: str
    sequential: bool
    send: Callable[[], Sent]


@dataclass(frozen=True, slots=True)
class Bench:
    """One ApacheBench call: its report, the split it made, and how blind it was."""

    path: str
    report: ab_report.AbReport
    split: Split
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        figures = ab_report.as_dict(self.report)
        return {"path": self.path, "split": dict(self.split.counts), "note": self.note, **figures}


def bench(lab: Lab, call: traffic.Ab) -> Bench:
    """Run ab by the method that serves now and count its split from nginx's log."""
    mark = nginx.log_size(lab)
    found = ab_report.parse(traffic.ab(lab, call))
    hits = access_log.read(nginx.log_with(lab, mark, found.complete_requests).splitlines()).hits
    method = saved(lab).method
    note = (
        f"one ab run has one address and one key: {method} sends it to one server;"
        f" see lab run {method}"
        if Decides.KEY in methods.method(method).decides
        else ""
    )
    return Bench(
        call.path, found, short(split(access_log.named(hits, compose.addresses(lab)))), note
    )


def both_services(call: traffic.Ab) -> list[traffic.Ab]:
    """The article's two calls in one go: chat with JSON, completions with text."""
    message = b'{"message": "Hello, this is a test message"}'
    text = b"Hello, I am the assistant that the lab tests!"
    return [
        replace(call, path="/chat", body=message, content_type="application/json"),
        replace(call, path="/completions", body=text, content_type="text/plain"),
    ]


def count_lab(lab: Lab) -> Count:
    """Count the lab's own log since the last switch of method, by backend."""
    names = {address: name.rsplit(":", 1)[0] for address, name in compose.addresses(lab).items()}
    return count(io.BytesIO(nginx.log_since(lab, log_mark(lab)))).named(names)


def run(
    lab: Lab,
    choice: methods.Choice,
    call: traffic.Ab,
    by_ab: bool,
    seed: int,
    concurrency: int,
    on_progress: sender.OnProgress | None = None,
) -> Outcome:
    """One verdict, by ab or by the traffic that the method needs (concurrency 0: as it needs)."""
    if by_ab or not probes.ab_is_blind(choice.method):
        return run_ab(lab, choice, call)
    key = choice.key or methods.method(choice.method).key
    plan = probes.plan(choice.method, key, call.requests, seed, concurrency)
    return run_plan(lab, choice, plan, on_progress)


def run_ab(lab: Lab, choice: methods.Choice, call: traffic.Ab) -> Outcome:
    """Switch, run ApacheBench, judge."""

    def send() -> Sent:
        printed = traffic.ab(lab, call)
        return Sent(ab_report.parse(printed).complete_requests, ab=printed)

    name = f"ab -n {call.requests} -c {call.concurrency}{' -k' if call.keepalive else ''}"
    use(lab, choice)
    return observe(lab, choice, Load(name, call.concurrency == 1, send))


def run_plan(
    lab: Lab,
    choice: methods.Choice,
    plan: probes.Plan,
    on_progress: sender.OnProgress | None = None,
) -> Outcome:
    """Switch, send planned requests, judge."""
    use(lab, choice)
    return observe_plan(lab, choice, plan, on_progress)


def observe_plan(
    lab: Lab,
    choice: methods.Choice,
    plan: probes.Plan,
    on_progress: sender.OnProgress | None = None,
) -> Outcome:
    """Send planned requests to an nginx that has just been switched, and judge."""
    name = f"{len(plan.requests)} generated requests, concurrency {plan.concurrency}"

    def send() -> Sent:
        requests = workload.fixed(plan.requests, plan.concurrency, plan.sessions)
        records = sender.run(requests, lab.door, on_progress, timeout=ANSWER_SECONDS)
        refuse_failures(records)
        return Sent(len(records), tuple(records))

    return observe(lab, choice, Load(name, plan.concurrency == 1, send))


def refuse_failures(records: Sequence[Record]) -> None:
    """LabError where a request got no answer at all."""
    silent = [record for record in records if record.status is None]
    if silent:
        lost = f"{len(silent):,} of {len(records):,} requests got no answer"
        first = silent[0]
        raise LabError(
            f"{lost}; request {first.number + 1}: {first.error} {first.detail}",
            "lab status; docker compose logs nginx",
        )


def observe(lab: Lab, choice: methods.Choice, load: Load) -> Outcome:
    """Send a load to an nginx that has just been switched; judge what every side logged."""
    collector = begin(lab)
    sent = load.send()
    place = collector.collect(
        sent, kind="run", method=choice.method, traffic=load.name, sequential=load.sequential
    )
    return judge_run(place)


def demo(lab: Lab, requests: int) -> Iterator[Outcome]:
    """Every method that this nginx has: under ab, and where that is blind, its own traffic."""
    running = nginx.version(lab)
    for name, method in methods.methods().items():
        if running < method.needs:
            continue
        choice = choose(lab, name)
        yield run_ab(lab, choice, traffic.Ab(requests))
        if probes.ab_is_blind(name):
            yield run_plan(lab, choice, probes.plan(name, method.key, 300, seed=1))
