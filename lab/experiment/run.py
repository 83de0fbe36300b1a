"""Run one method: switch to it, send traffic, collect the logs, judge them."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

from ..accounts.judging.run import judge_run
from ..accounts.outcome import Outcome, short
from ..errors import LabError, UsageError
from ..evidence import ab_report, access_log
from ..evidence.record import Record
from ..evidence.split import Count, Split, count, split
from ..evidence.timeline import FIRST_CLAIM
from ..nginxconf import methods, sources
from ..nginxconf.methods import Decides
from ..signals import INTERRUPTIONS
from ..stack import compose, nginx
from ..stack.compose import Lab
from ..traffic import ab as traffic
from ..traffic import probes, sender, workload
from ..verdict.needed import requests_for_pass
from ..word import Word
from .collect import Sent, begin, keep_evidence
from .fleet import choose, log_mark, refuse_missing, saved, use

ANSWER_SECONDS = 120.0
USUAL = 1000  # requests of a run without -n, unless its method needs more
MOST_TRACED = 20_000  # requests of a traced run: its debug log has 6 KB for each


class Source(StrEnum):
    """The evidence of a run: nginx's debug log of its picks (the trace), or only its access log.

    AUTO takes the trace if nginx was built with a debug log and the run is short enough.
    """

    AUTO = "auto"
    TRACE = "trace"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Load:
    """Traffic that `send` sends; one request after the other if `sequential`.

    `returning` requests come from clients that send back the cookies of earlier responses.
    `records` grows while the requests are sent, where the client keeps records.
    """

    name: str
    sequential: bool
    send: Callable[[], Sent]
    returning: int = 0
    records: list[Record] = field(default_factory=list)

    def sent_so_far(self) -> Sent:
        """What was sent so far, for a run that is interrupted."""
        answered = sum(record.status is not None for record in self.records)
        return Sent(answered, tuple(self.records))


@dataclass(frozen=True, slots=True)
class Bench:
    """One ApacheBench call: its report, its split, and a note if ab cannot test the method."""

    path: str
    report: ab_report.AbReport
    split: Split
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        figures = ab_report.as_dict(self.report)
        return {"path": self.path, "split": dict(self.split.counts), "note": self.note, **figures}


def bench(lab: Lab, call: traffic.Ab) -> Bench:
    """Run ab with the current method; count the split from nginx's log."""
    refuse_missing(lab)
    mark = nginx.log_size(lab)
    report = ab_report.parse(traffic.ab(lab, call))
    hits = access_log.read(nginx.log_with(lab, mark, report.complete_requests).splitlines()).hits
    method = saved(lab).method
    note = (
        f"one ab run has one address and one key: {method} sends it to one server;"
        f" see lab run {method}"
        if Decides.KEY in methods.method(method).decides
        else ""
    )
    return Bench(
        call.path, report, short(split(access_log.named(hits, compose.addresses(lab)))), note
    )


def both_services(call: traffic.Ab) -> list[traffic.Ab]:
    """The article's two calls: JSON to /chat, text to /completions."""
    message = b'{"message": "Hello, this is a test message"}'
    text = b"Hello, I am the assistant that the lab tests!"
    return [
        replace(call, path="/chat", body=message, content_type="application/json"),
        replace(call, path="/completions", body=text, content_type="text/plain"),
    ]


def count_lab(lab: Lab) -> Count:
    """Count the requests in the lab's own log since the last switch of the method, by backend."""
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
    source: Source = Source.AUTO,
    on_more: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run one method and judge it; with ab, or with generated requests that test the method.

    A `concurrency` of 0 is the method's own. If `call.requests` is 0, as many requests are sent as
    a PASS needs; after an UNSURE the run is repeated with three times as many, at most
    MOST_TRACED, and `on_more` is called with the verdict and the new number.
    """
    requests = call.requests or requests_needed(choice)
    key = choice.key or methods.method(choice.method).key

    def once() -> Outcome:
        if by_ab or not probes.ab_cannot_test(choice.method):
            most = min(call.concurrency, requests)
            sized = replace(call, requests=requests, concurrency=most)
            return run_ab(lab, choice, sized, source)
        plan = probes.plan(choice.method, key, requests, seed, concurrency)
        return run_plan(lab, choice, plan, on_progress, source)

    while True:
        outcome = once()
        if outcome.verdict.word is not Word.UNSURE or call.requests or requests * 3 > MOST_TRACED:
            return outcome
        requests *= 3
        on_more(f"{outcome.verdict}\n{requests:,} requests now")


def requests_needed(choice: methods.Choice) -> int:
    """How many requests a PASS needs: USUAL, or more for a method that draws servers."""
    servers = [f"{name}:{compose.BACKEND_PORT}" for name in choice.backends]
    weights = ",".join(map(str, choice.weights))
    measure = choice.measure or "header"
    claim, _ = sources.from_method(
        choice.method, servers, weights, choice.key, measure, choice.zone, choice.prefix
    )
    return requests_for_pass(claim, USUAL)


def run_ab(
    lab: Lab, choice: methods.Choice, call: traffic.Ab, source: Source = Source.AUTO
) -> Outcome:
    """Switch the method, run ApacheBench, judge."""

    def send() -> Sent:
        printed = traffic.ab(lab, call)
        return Sent(ab_report.parse(printed).complete_requests, ab=printed)

    name = f"ab -n {call.requests} -c {call.concurrency}{' -k' if call.keepalive else ''}"
    load = Load(name, call.concurrency == 1, send)
    return observe(lab, choice, load, trace=is_traced(lab, source, call.requests))


def run_plan(
    lab: Lab,
    choice: methods.Choice,
    plan: probes.Plan,
    on_progress: sender.OnProgress | None = None,
    source: Source = Source.AUTO,
) -> Outcome:
    """Switch the method, send planned requests, judge."""
    trace = is_traced(lab, source, len(plan.requests))
    return observe_plan(lab, choice, plan, on_progress, trace=trace)


def is_traced(lab: Lab, source: Source, requests: int) -> bool:
    """Whether to judge by nginx's debug log; UsageError if it is requested but unavailable."""
    if source is Source.LOG or (source is Source.AUTO and requests > MOST_TRACED):
        return False
    if nginx.can_trace(lab):
        return True
    if source is Source.TRACE:
        raise UsageError("this nginx was built without a debug log", "--evidence log")
    return False


def observe_plan(
    lab: Lab,
    choice: methods.Choice,
    plan: probes.Plan,
    on_progress: sender.OnProgress | None = None,
    *,
    trace: bool | None = None,
) -> Outcome:
    """Send planned requests and judge; `trace` as `observe` takes it."""
    name = f"{len(plan.requests)} generated requests, concurrency {plan.concurrency}"
    kept: list[Record] = []

    def send() -> Sent:
        records = sender.run(
            fixed(plan),
            lab.door,
            on_progress,
            timeout=ANSWER_SECONDS,
            records_so_far=kept,
            key_of=sources.key_as_sent(lab.active / FIRST_CLAIM),
        )
        refuse_failures(records)
        return Sent(len(records), tuple(records))

    returning = len(plan.sessions) - len(set(plan.sessions))
    load = Load(name, plan.concurrency == 1, send, returning, kept)
    return observe(lab, choice, load, trace=trace)


def fixed(plan: probes.Plan) -> workload.Plan:
    """The workload of a plan; concurrent requests use a new connection each.

    One worker may accept all kept-alive connections, which would hide a missing zone.
    """
    requests = workload.fixed(plan.requests, plan.concurrency, plan.sessions)
    return requests if plan.concurrency == 1 else replace(requests, keepalive=False)


def refuse_failures(records: Sequence[Record]) -> None:
    """Raise LabError if a request got no answer at all."""
    unanswered = [record for record in records if record.status is None]
    if unanswered:
        lost = f"{len(unanswered):,} of {len(records):,} requests got no answer"
        first = unanswered[0]
        raise LabError(
            f"{lost}; request {first.number + 1}: {first.error} {first.detail}",
            "lab status; lab logs nginx",
        )


def observe(lab: Lab, choice: methods.Choice, load: Load, *, trace: bool | None = None) -> Outcome:
    """Switch nginx to a method, send a load, collect the logs and judge them.

    `trace` says whether nginx writes its debug log during the load; None if nginx was switched
    before. The debug log ends with the load, also if the switch or the load is interrupted. An
    interruption of the load has a note that names the folder with what was sent until then.
    """
    try:
        if trace is not None:
            use(lab, choice, trace=trace)
        collect = partial(
            replace(begin(lab), workers=nginx.workers(lab)).collect,
            kind="run",
            method=choice.method,
            traffic=load.name,
            sequential=load.sequential,
            notes={"returning": load.returning} if load.returning else {},
        )
        try:
            sent = load.send()
        except INTERRUPTIONS as stopped:
            keep_evidence(stopped, lambda: collect(load.sent_so_far(), interrupted=True))
            raise
        place = collect(sent)
    finally:
        nginx.stop_trace(lab)
    return judge_run(place)


def demo(lab: Lab, requests: int = 0) -> Iterator[Outcome]:
    """Run every method of this nginx, with ab if ab can test the method; yield each outcome."""
    running = nginx.version(lab)
    for name, method in methods.methods().items():
        if running >= method.needs:
            yield run(lab, choose(lab, name), traffic.Ab(requests), False, 1, 0)
