"""An LLM workload against a fleet: send a scenario, join what three sides saw, tell the figures."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..accounts import figures, join
from ..accounts.fates import (
    Call,
    Fault,
    Ledger,
    account,
    excused,
    losable,
    named_by_tenure,
    of_record,
)
from ..errors import LabError
from ..evidence import access_log
from ..evidence.record import Record
from ..nginxconf import methods, upstream
from ..stack import compose, faults, nginx
from ..stack.compose import Lab
from ..traffic import scenario as scenarios
from ..traffic import sender, workload
from .fleet import choose, saved, up, use
from .run import fresh_folder
from .story import Done, Story, broken, journal_of, log_of, rules_of, tenures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..traffic.scenario import Event, Scenario

LAST_ANSWER = 120.0  # seconds that a run may go on after its last request was due


@dataclass(frozen=True, slots=True)
class Loaded:
    """A scenario's run: its folder, its method, its figures, its findings, its timeline.

    `ledger` has every request's fate, where the scenario has a timeline.
    """

    folder: Path
    scenario: str
    method: str
    figures: figures.Figures
    findings: tuple[join.Finding, ...]
    timeline: tuple[Done, ...] = ()
    ledger: Ledger | None = None

    @property
    def holds(self) -> bool:
        """Whether client, nginx and backends agree on every request, and each fate is explained."""
        return self.figures.unexplained == 0 and (self.ledger is None or self.ledger.holds)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "scenario": self.scenario,
            "method": self.method,
            "folder": str(self.folder),
            "figures": figures.as_dict(self.figures),
            "findings": [asdict(one) for one in self.findings[:100]],
            "timeline": [asdict(one) for one in self.timeline],
            "ledger": self.ledger.as_dict() if self.ledger else None,
        }


def shortened(name_or_path: str, duration: float = 0.0) -> "Scenario":
    """A scenario by name or path, with another duration (seconds) if one is given."""
    found = scenarios.load(name_or_path)
    return replace(found, duration=duration) if duration else found


def blank(method: str, weights: str = "", key: str = "", measure: str = "") -> methods.Choice:
    """A choice of method before there is a fleet to choose for."""
    known = methods.method(method)
    return methods.Choice(known.name, (), methods.parse_weights(weights), key=key, measure=measure)


def prepare(lab: Lab, scenario: "Scenario") -> None:
    """Bring up the scenario's fleet, healthy, each backend with its own timing."""
    up(lab, scenario.backends, scenario.profile, scenario.time_scale)
    equip(lab, scenario)


def equip(lab: Lab, scenario: "Scenario") -> None:
    """Give every running backend its timing by the scenario, and an empty prefix cache."""
    running = {compose.service(each) for each in compose.backend_containers(lab)}
    for name, machine in scenarios.machines(scenario).items():
        if name in running:
            asked = {"profile": machine.profile, "time_scale": scenario.time_scale}
            faults.tell(lab, name, "PUT", "/profile", asked)
            faults.tell(lab, name, "PUT", "/behaviour", {"slow": machine.slow})
            faults.tell(lab, name, "DELETE", "/cache")


def load(
    lab: Lab,
    scenario: "Scenario",
    choice: methods.Choice | None = None,
    on_progress: sender.OnProgress | None = None,
) -> Loaded:
    """Send a scenario by one method (None: the one that serves) and join what every side saw."""
    prepare(lab, scenario)
    chosen = _fitted(lab, choice or saved(lab))
    use(lab, chosen)
    mark, began = nginx.log_size(lab), time.time()
    story = Story(began, list(tenures(lab, began, began)))
    limit = None if scenario.duration is None else scenario.duration + LAST_ANSWER
    with timeline(lab, scenario, story):
        plan = workload.plan(scenario)
        records = sender.run(plan, lab.door, on_progress, limit=limit)
    met = broken(story, scenario.backends)
    access, journal = _logs(lab, mark, began, records, met)
    folder = fresh_folder(f"{scenario.name}-{chosen.method}")
    _keep(folder, scenario, records, access, journal)
    lines, entries = _read(records, access, journal)
    joined = join.join(records, lines, entries)
    found = tuple(excused(joined.findings, _calls(records), met))
    names = tuple(compose.service(each) for each in compose.backend_containers(lab))
    told = figures.figures(replace(joined, findings=found), scenario.targets, chosen.method, names)
    ledger = _ledger(lab, story, met, records, lines, entries) if story.done else None
    done = tuple(story.done)
    loaded = Loaded(folder, scenario.name, chosen.method, told, found, done, ledger)
    (folder / "figures.json").write_text(json.dumps(loaded.as_dict(), indent=1, default=str))
    return loaded


def _fitted(lab: Lab, choice: methods.Choice) -> methods.Choice:
    """A choice made before the scenario had its fleet, for the backends that run now."""
    fresh = choose(lab, choice.method)
    weights = choice.weights if len(choice.weights) == len(fresh.backends) else ()
    return replace(choice, backends=fresh.backends, weights=weights)


def _keep(
    folder: Path,
    scenario: "Scenario",
    records: Sequence[Record],
    access: bytes,
    journal: bytes,
) -> None:
    """Write the raw evidence before anything is made of it."""
    folder.mkdir(parents=True)
    (folder / "access.jsonl").write_bytes(access)
    (folder / "backends.jsonl").write_bytes(journal)
    (folder / "client.jsonl").write_text(
        "".join(json.dumps(asdict(record)) + "\n" for record in records)
    )
    (folder / "scenario.json").write_text(json.dumps(asdict(scenario), indent=1, default=str))


def _calls(records: Sequence[Record]) -> list[Call]:
    """The calls behind the records; what was held back for too many open requests is none."""
    return [of_record(record) for record in records if record.error != "unsent"]


def _logs(
    lab: Lab,
    mark: int,
    began: float,
    records: Sequence[Record],
    met: Sequence[Fault],
) -> tuple[bytes, bytes]:
    """nginx's and the backends' logs of a run, whole but for the lines that a kill took."""
    reached = sum(record.status is not None for record in records)
    if not (lost := losable(_calls(records), met)):
        return nginx.log_with(lab, mark, reached), compose.journals(lab, began, reached)
    sure = reached - lost
    return log_of(lab, mark, sure), journal_of(lab, began, sure)


def _read(
    records: Sequence[Record], access: bytes, journal: bytes
) -> tuple[list[join.Line], list[join.Entry]]:
    """The lines of both logs that are about the run's own requests."""
    known = {record.id for record in records}
    log = access_log.read(access.splitlines(keepends=True))
    asked: tuple[join.Line, ...] = (*log.hits, *log.unproxied)
    lines = [line for line in asked if line.request_id in known]
    entries = [each for each in join.journal(journal.splitlines()).entries if each.id in known]
    return lines, entries


def _ledger(
    lab: Lab,
    story: Story,
    met: Sequence[Fault],
    records: Sequence[Record],
    lines: Sequence[join.Line],
    entries: Sequence[join.Entry],
) -> Ledger:
    """Every request's fate, by what was done to the lab and what nginx was told."""
    rules = rules_of(upstream.read(lab.active / "upstream.conf"), story)
    hits = named_by_tenure(lines, story.tenures)
    return account(_calls(records), hits, entries, met, rules)


# --- the timeline -------------------------------------------------------------------------


@contextmanager
def timeline(lab: Lab, scenario: "Scenario", story: Story) -> "Iterator[None]":
    """Do the scenario's events at their times, in a thread of their own, while the load runs.

    What was done is told in the story. Whatever is still broken afterwards is mended.
    """
    over = threading.Event()
    began = time.monotonic()

    def play() -> None:
        for event in scenario.timeline:
            if over.wait(max(0.0, began + event.at - time.monotonic())):
                return
            start = time.time()
            story.done.append(_happen(lab, scenario, event, began))
            story.tenures += tenures(lab, start, start)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=120)
        if any(each.event.do == "fault" for each in story.done):
            faults.heal(lab)
            equip(lab, scenario)
        story.mended = time.time()


def _happen(lab: Lab, scenario: "Scenario", event: "Event", began: float) -> Done:
    """One event; what went wrong with it is part of the run."""
    started = time.monotonic() - began
    error = ""
    try:
        _ACTIONS[event.do](lab, scenario, event)
    except LabError as failed:
        error = failed.message
    return Done(event, started, time.monotonic() - began, error)


def _scale(lab: Lab, scenario: "Scenario", event: "Event") -> None:
    up(lab, event.backends or scenario.backends, scenario.profile, scenario.time_scale)
    equip(lab, scenario)


def _use(lab: Lab, _scenario: "Scenario", event: "Event") -> None:
    use(lab, choose(lab, event.method, weights=event.weights, key=event.key))


_ACTIONS: Mapping[str, Callable[[Lab, "Scenario", "Event"], object]] = {
    "fault": lambda lab, _, event: faults.fault(lab, event.backend, event.kind, event.value),
    "heal": lambda lab, _, event: faults.heal(lab, event.backend),
    "scale": _scale,
    "use": _use,
    "reload": lambda lab, _, __: faults.reload(lab),
}


# --- comparing ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compared:
    """One method over its repeats: the median of a figure and its spread, lowest to highest."""

    method: str
    repeats: int
    values: Mapping[str, tuple[float, float, float]]


COMPARED: Mapping[str, Callable[[figures.Figures], float | None]] = {
    "ttft_p50_ms": lambda told: told.overall.ttft_ms.p50,
    "ttft_p99_ms": lambda told: told.overall.ttft_ms.p99,
    "e2e_p99_ms": lambda told: told.overall.e2e_ms.p99,
    "goodput": lambda told: told.overall.goodput,
    "fair_requests": lambda told: told.fairness.requests,
    "fair_tokens": lambda told: told.fairness.tokens,
    "fair_busy": lambda told: told.fairness.busy,
    "cache_hit_rate": lambda told: told.overall.cache_hit_rate,
}


def compare(runs: Sequence[Loaded]) -> tuple[Compared, ...]:
    """Median and spread of each figure, method by method, in the order of their first runs."""
    found = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [run.figures for run in runs if run.method == method]
        values = {
            name: (statistics.median(seen), min(seen), max(seen))
            for name, figure in COMPARED.items()
            if (seen := [value for told in own if (value := figure(told)) is not None])
        }
        found.append(Compared(method, len(own), values))
    return tuple(found)
