"""One method under traffic: send, collect what every side logged, judge, keep the evidence."""

import io
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import verdict
from ..evidence import ab_report, access_log
from ..evidence import folder as evidence
from ..evidence.folder import Evidence
from ..evidence.split import Count, Split, count, split
from ..nginxconf import methods, upstream
from ..paths import ROOT
from ..stack import compose, faults, nginx
from ..stack.compose import Lab
from ..traffic import ab as traffic
from ..traffic import probes
from ..verdict import Verdict
from .fleet import choose, log_mark, saved, use


@dataclass(frozen=True, slots=True)
class Counts:
    """One split counted three ways: nginx's log, the backends' own lines, the client."""

    nginx: Split
    backends: Split
    client: int

    @property
    def agree(self) -> bool:
        """Whether all three tell the same."""
        return self.nginx == self.backends and self.nginx.total == self.client

    def __str__(self) -> str:
        if self.agree:
            return f"nginx, backends and client all count {self.client:,}"
        return f"nginx: {self.nginx}; backends: {self.backends}; client: {self.client:,}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    folder: Path
    method: str
    traffic: str
    split: Split
    counts: Counts
    verdict: Verdict

    @property
    def holds(self) -> bool:
        """Whether the method did what was predicted and the three counts agree."""
        return self.verdict.word == "PASS" and self.counts.agree

    def __str__(self) -> str:
        return f"{self.verdict}\n       {self.counts}\n       {self.folder}"

    def case(self) -> dict[str, str]:
        """Give the verdict as a case of a JUnit suite; counts that differ are a failure."""
        word = self.verdict.word if self.counts.agree else "FAIL"
        return {"name": f"{self.method}: {self.traffic}", "word": word, "text": str(self)}

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "verdict": self.verdict.word,
            "method": self.method,
            "traffic": self.traffic,
            "split": dict(self.split.counts),
            "why": self.verdict.why,
            "counts_agree": self.counts.agree,
            "counts": str(self.counts),
            "folder": str(self.folder),
        }


@dataclass(frozen=True, slots=True)
class Load:
    """Traffic to send: its name, whether one after the other, how; what ab printed if it ran."""

    name: str
    sequential: bool
    send: Callable[[], int]
    printed: list[str] = field(default_factory=list)


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
        if method in probes.BY_REQUEST
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
    on_progress: Callable[[int], None],
) -> Outcome:
    """One verdict, by ab or by the traffic that the method needs (concurrency 0: as it needs)."""
    if by_ab or not probes.ab_is_blind(choice.method):
        return run_ab(lab, choice, call)
    key = choice.key or methods.method(choice.method).key
    plan = probes.plan(choice.method, key, call.requests, seed, concurrency)
    return run_plan(lab, choice, plan, on_progress)


def run_ab(lab: Lab, choice: methods.Choice, call: traffic.Ab) -> Outcome:
    """Switch, run ApacheBench, judge."""
    printed: list[str] = []

    def send() -> int:
        printed.append(traffic.ab(lab, call))
        return ab_report.parse(printed[0]).complete_requests

    name = f"ab -n {call.requests} -c {call.concurrency}{' -k' if call.keepalive else ''}"
    use(lab, choice)
    return observe(lab, choice, Load(name, call.concurrency == 1, send, printed))


def run_plan(
    lab: Lab,
    choice: methods.Choice,
    plan: probes.Plan,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Switch, send planned requests, judge."""
    use(lab, choice)
    return observe_plan(lab, choice, plan, on_progress)


def observe_plan(
    lab: Lab,
    choice: methods.Choice,
    plan: probes.Plan,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Send planned requests to an nginx that has just been switched, and judge."""
    name = f"{len(plan.requests)} of its own, {plan.concurrency} at a time"

    def send() -> int:
        answers = traffic.send(
            lab.door, plan.requests, plan.concurrency, plan.sessions, on_progress
        )
        traffic.refuse_failures(answers)
        return len(answers)

    return observe(lab, choice, Load(name, plan.concurrency == 1, send))


def observe(lab: Lab, choice: methods.Choice, load: Load) -> Outcome:
    """Send a load to an nginx that has just been switched; collect what every side logged."""
    mark = nginx.log_size(lab)
    began = time.time()
    sent = load.send()
    access = nginx.log_with(lab, mark, sent)
    found = Evidence(
        method=choice.method,
        traffic=load.name,
        sequential=load.sequential,
        sent=sent,
        addresses=faults.known(lab),
        claim=methods.render(choice),
        configuration=nginx.configuration(lab),
        access=access,
        journal=compose.journals(lab, began, access.count(b"\n")),
        ab="".join(load.printed),
    )
    folder = fresh_folder(choice.method)
    evidence.write(found, folder)
    return judge(folder)


def fresh_folder(name: str) -> Path:
    """A folder under .lab/runs that no other run has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    runs = ROOT / ".lab/runs"
    candidates = (runs / f"{stamp}-{name}{f'-{n}' if n else ''}" for n in range(1000))
    return next(folder for folder in candidates if not folder.exists())


# --- judging: computes only, from a run's folder ------------------------------------------


def judge(folder: Path) -> Outcome:
    """Recompute a run's outcome from its folder; needs no Docker."""
    found = evidence.read(folder)
    log = access_log.read(found.access.splitlines(keepends=True))
    hits = tuple(access_log.named(log.hits, found.addresses))
    claim = upstream.read(folder / evidence.TEXTS["claim"])
    counts = _counts(found, log, hits)
    said = verdict.judge(
        claim,
        hits,
        sequential=found.sequential,
        addresses=_resolved(found),
        clock=math.ceil(evidence.clock_doubt(log.hits, found.journal)),
    )
    named = replace(
        said, method=found.method, command=said.command.replace(said.method, found.method)
    )
    return Outcome(folder, found.method, found.traffic, short(split(hits)), counts, named)


def _resolved(found: Evidence) -> Mapping[str, tuple[str, ...]]:
    """The addresses behind each `server` text."""
    return {name: (address,) for address, name in found.addresses.items()}


def _counts(found: Evidence, log: access_log.Log, hits: tuple[access_log.Hit, ...]) -> Counts:
    known = {hit.request_id for hit in log.hits}
    own = Counter(
        str(entry["backend"])
        for entry in evidence.journal_lines(found.journal)
        if entry["id"] in known
    )
    return Counts(short(split(hits)), Split.of(own), found.sent)


def short(found: Split) -> Split:
    """A split without the port that all its servers share: backend-1, not backend-1:8000."""
    names = {server: server.rsplit(":", 1)[0] for server in found.counts}
    ports = {server.rsplit(":", 1)[-1] for server in found.counts}
    return found.named(names) if ports == {str(compose.BACKEND_PORT)} else found


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
