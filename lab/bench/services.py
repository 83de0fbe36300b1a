"""Throughput, latency and CPU time of the lab and of its reference stacks, in turn."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError
from ..evidence import ab_report
from ..stack import compose, sdk
from ..stack.compose import Lab
from ..traffic import ab
from .figures import Series, ratio
from .rivals import Target, rivals

SECTION = "services"
BODY = b'{"message": "Hello, this is a test message"}'
ENGINE = ("dockerd", "containerd")  # containerd-shim too: they carry the logs
TICKS = os.sysconf("SC_CLK_TCK")
SLOW = {"article": 0.25}  # a slow stack gets only this share of the requests


@dataclass(frozen=True, slots=True)
class Case:
    """One ab call: GET / or POST /chat, at some concurrency, with or without -k."""

    post: bool
    concurrency: int
    keepalive: bool

    def __str__(self) -> str:
        request = "POST /chat" if self.post else "GET /"
        return f"{request} c={self.concurrency}{' -k' if self.keepalive else ''}"

    def call(self, requests: int) -> ab.Ab:
        """The call of ab."""
        path, body = ("/chat", BODY) if self.post else ("/", None)
        return ab.Ab(requests, self.concurrency, self.keepalive, path, body)


QUICK = [
    Case(post, 50 if post else 10, keepalive)
    for post in (False, True)
    for keepalive in (False, True)
]
FULL = [
    Case(post, concurrency, keepalive)
    for post in (False, True)
    for concurrency in (10, 50, 200)
    for keepalive in (False, True)
]


@dataclass(frozen=True, slots=True)
class Turn:
    """The result of one ab call: requests/s, ms, CPU seconds per 100,000 requests by consumer."""

    rate: float
    p50: float
    p99: float
    failed: int
    cpu: dict[str, float]

    @property
    def work(self) -> float:
        """CPU seconds of proxy, backends and client; the engine serves other containers too."""
        return sum(seconds for who, seconds in self.cpu.items() if who != "engine")


def measure(lab: Lab, quick: bool, repeats: int, note: Callable[[str], None]) -> Iterator[Series]:
    """Every case on every target in turn, `repeats` times; and the ratios to the ceiling."""
    requests = 4_000 if quick else 5_000
    with rivals(lab) as targets:
        for target in targets:
            one_turn(lab, target, QUICK[0], 500)
        cases = QUICK if quick else FULL
        for number, case in enumerate(cases, 1):
            note(f"services: {case} ({number} of {len(cases)})")
            turns: dict[str, list[Turn]] = defaultdict(list)
            for _ in range(repeats):
                for target in targets:
                    share = int(requests * SLOW.get(target.name, 1))
                    turn = one_turn(lab, target, case, max(case.concurrency, share))
                    turns[target.name].append(turn)
            yield from series_of(str(case), turns)


def one_turn(lab: Lab, target: Target, case: Case, requests: int) -> Turn:
    """One call of ab through a target's door."""
    before = cpu_seconds(lab, target)
    report = ab_report.parse(ab.ab(lab, case.call(requests), target.base))
    after = cpu_seconds(lab, target)
    failed = report.failed_requests + report.non_2xx_responses
    if report.requests_per_second is None or not report.percentiles:
        raise LabError(
            f'no figures from ab for "{case}" on the stack "{target.name}"', "lab status"
        )
    return Turn(
        report.requests_per_second,
        report.percentiles[50],
        report.percentiles[99],
        failed,
        {who: (after[who] - before[who]) * 100_000 / requests for who in before},
    )


def series_of(case: str, turns: dict[str, list[Turn]]) -> Iterator[Series]:
    """The series of one case: of each target, then the ratios of the lab to the ceiling."""
    rates, tails, work = {}, {}, {}
    for name, measured in turns.items():
        subject = f"{case} {name}"
        rates[name] = series("requests/s", subject, "1/s", [turn.rate for turn in measured])
        # ab's percentiles are whole milliseconds: 0 stands for less than one
        tails[name] = series("p99", subject, "ms", [max(turn.p99, 1) for turn in measured])
        yield rates[name]
        yield series("p50", subject, "ms", [turn.p50 for turn in measured])
        yield tails[name]
        yield series("failed", subject, "requests", [turn.failed for turn in measured])
        for who in measured[0].cpu:
            spent = [turn.cpu[who] for turn in measured]
            yield series(f"CPU of {who}", subject, "s/100,000", spent)
        work[name] = series("CPU of all", subject, "s/100,000", [turn.work for turn in measured])
        yield work[name]
    yield ratio("requests/s of the ceiling", case, rates["lab"], rates["ceiling"])
    yield ratio("p99 of the ceiling's", case, tails["lab"], tails["ceiling"])
    # other work on the machine affects wall-clock ratios, hardly this one
    yield ratio("the ceiling's CPU by the lab's", case, work["ceiling"], work["lab"])
    yield ratio("requests/s of the article's stack", case, rates["lab"], rates["article"])
    if "haproxy" in rates:
        yield ratio("requests/s of HAProxy", case, rates["lab"], rates["haproxy"])


def series(what: str, subject: str, unit: str, values: Sequence[float]) -> Series:
    """A series of this section."""
    return Series(SECTION, what, subject, unit, tuple(values))


def cpu_seconds(lab: Lab, target: Target) -> dict[str, float]:
    """The CPU seconds that each consumer has used: proxy, backends, client and the engine."""
    api = sdk.engine().api
    ids = {
        "proxy": target.proxies,
        "backends": target.backends,
        "client": (compose.container_id(lab, "load"),),
    }
    used = {
        who: sum(
            api.stats(container, stream=False, one_shot=True)["cpu_stats"]["cpu_usage"][
                "total_usage"
            ]
            for container in containers
        )
        / 1e9
        for who, containers in ids.items()
    }
    return {**used, "engine": engine_seconds()}


def engine_seconds() -> float:
    """The CPU seconds of the container engine's processes, which write the containers' logs."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, fields = stat.read_text().rpartition(") ")
        except OSError:  # the process has ended
            continue
        if head.partition("(")[2].startswith(ENGINE):
            user, system = fields.split()[11:13]
            total += int(user) + int(system)
    return total / TICKS
