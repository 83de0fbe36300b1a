"""The results of a run, a load and a soak, as values: their verdicts, text and JSON."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..evidence.split import Split
from ..evidence.timeline import Done, Event, Incident
from ..fault_kinds import KINDS
from ..traffic.scenario import Targets
from ..verdict import Verdict
from ..word import Word
from . import figures, join
from .fates import ALL, Ledger
from .foreign import in_words

PORT = "8000"  # of every backend of the lab
NO_TARGETS = Targets()
MOST_LATE_MS = 20.0  # p99 lateness of a backend's tokens up to which its figures are sound
SLACK_BYTES = 32 << 20  # growth of a service's memory during a soak that is accepted


@dataclass(frozen=True, slots=True)
class Counts:
    """One split counted three ways: nginx's log, the backends' own lines, the client.

    `foreign` requests, which other clients sent during the run, are in none of the three.
    """

    nginx: Split
    backends: Split
    client: int
    foreign: int = 0

    @property
    def agree(self) -> bool:
        """Whether all three counts are equal."""
        return self.nginx == self.backends and self.nginx.total == self.client

    def __str__(self) -> str:
        apart = f"; {in_words(self.foreign)} counted separately" if self.foreign else ""
        if self.agree:
            return f"nginx, backends and client all count {self.client:,}{apart}"
        return f"nginx: {self.nginx}; backends: {self.backends}; client: {self.client:,}{apart}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of `lab run`: the split, counted three ways, and the verdict on it."""

    folder: Path
    method: str
    traffic: str
    split: Split
    counts: Counts
    verdict: Verdict

    @property
    def holds(self) -> bool:
        """Whether the method did what was predicted."""
        return self.verdict.word == Word.PASS

    def __str__(self) -> str:
        return f"{self.verdict}\n       {self.counts}\n       {self.folder}"

    def case(self) -> dict[str, str]:
        """Give the verdict as a case of a JUnit suite."""
        word = self.verdict.word
        return {"name": f"{self.method}: {self.traffic}", "word": word, "text": str(self)}

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "holds": self.holds,
            "verdict": self.verdict.word,
            "method": self.method,
            "traffic": self.traffic,
            "split": dict(self.split.counts),
            "why": self.verdict.why,
            "counts_agree": self.counts.agree,
            "counts": str(self.counts),
            "foreign": self.counts.foreign,
            "folder": str(self.folder),
        }


@dataclass(frozen=True, slots=True)
class Loaded:
    """The result of `lab load`: figures, findings, every request's fate, nginx's picks.

    `verdict` is about nginx's picks before the timeline's first event. `changed` describes what
    setting up the scenario's fleet changed, `skipped` are the events that were not reached,
    `incidents` the changes of a service that no event explains, `targets` the limits that a good
    request meets.
    """

    folder: Path
    scenario: str
    method: str
    figures: figures.Figures
    findings: tuple[join.Finding, ...]
    timeline: tuple[Done, ...]
    ledger: Ledger
    verdict: Verdict
    began: float = 0.0
    changed: tuple[str, ...] = ()
    skipped: tuple[Event, ...] = ()
    incidents: tuple[Incident, ...] = ()
    targets: Targets = NO_TARGETS

    @property
    def holds(self) -> bool:
        """Whether all logs agree, every failure is explained, and no pick was wrong.

        With an event that failed, the requests met another lab than the scenario describes.
        """
        agree = self.figures.unexplained == 0 and not self.incidents
        as_planned = agree and not any(done.error for done in self.timeline)
        return as_planned and self.ledger.holds and self.verdict.word != Word.FAIL

    @property
    def saturated(self) -> tuple[str, ...]:
        """The backends whose tokens were so late that the figures include delays of this machine.

        A backend that was paused, hung or had an incident is left out: that delayed its tokens.
        """
        frozen = {kind.name for kind in KINDS.values() if kind.freezes}
        paused = {done.event.backend for done in self.timeline if done.event.kind in frozen}
        paused |= {incident.service for incident in self.incidents}
        return tuple(
            group.name
            for group in self.figures.backends
            if (group.late_ms.p99 or 0.0) > MOST_LATE_MS and paused.isdisjoint({group.name, ALL})
        )

    def case(self) -> dict[str, str]:
        """Give the load as a case of a JUnit suite."""
        word = Word.PASS if self.holds else Word.FAIL
        text = f"{word}  {self.scenario} by {self.method}\n{self.verdict}\n{self.ledger}"
        return {"name": f"{self.scenario}: {self.method}", "word": word, "text": text}

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "scenario": self.scenario,
            "method": self.method,
            "folder": str(self.folder),
            "holds": self.holds,
            "verdict": self.verdict.word,
            "why": self.verdict.why,
            "figures": figures.as_dict(self.figures),
            "findings": [asdict(finding) for finding in self.findings[:100]],
            "timeline": [asdict(done) for done in self.timeline],
            "skipped": [asdict(event) for event in self.skipped],
            "incidents": [asdict(incident) for incident in self.incidents],
            "changed": list(self.changed),
            "saturated": list(self.saturated),
            "ledger": self.ledger.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Recovery:
    """The verdict on the split that begins `fail_timeout` + 1 s after a repair.

    `later` is how many seconds after that the judged requests began: more than 0 if the first
    ones were UNSURE, as on a machine where nginx's clock lags.
    """

    step: str
    verdict: Verdict
    later: float = 0.0


@dataclass(frozen=True, slots=True)
class Soaked:
    """The result of `lab soak`; `memory` is bytes by service, before and after.

    `incidents` are the changes of a service that no step explains.
    """

    folder: Path
    seed: int
    seconds: float
    steps: tuple[str, ...]
    memory: Mapping[str, tuple[int, ...]]
    ledger: Ledger
    recoveries: tuple[Recovery, ...]
    began: float = 0.0
    incidents: tuple[Incident, ...] = ()

    @property
    def not_recovered(self) -> tuple[Recovery, ...]:
        """The faults after which no split matched the prediction."""
        return tuple(recovery for recovery in self.recoveries if recovery.verdict.word != Word.PASS)

    @property
    def recovered_later(self) -> tuple[Recovery, ...]:
        """The faults after which the first requests were UNSURE and later ones PASS."""
        return tuple(
            recovery
            for recovery in self.recoveries
            if recovery.later and recovery.verdict.word == Word.PASS
        )

    @property
    def growing(self) -> tuple[str, ...]:
        """The services whose memory grew."""
        return tuple(
            name for name, sizes in self.memory.items() if sizes[-1] > sizes[0] + SLACK_BYTES
        )

    @property
    def holds(self) -> bool:
        """Whether every fate and change is explained, every split recovered, and no memory grew."""
        explained = self.ledger.holds and not self.incidents
        return explained and not self.not_recovered and not self.growing

    def case(self) -> dict[str, str]:
        """Give the soak as a case of a JUnit suite."""
        word = Word.PASS if self.holds else Word.FAIL
        return {"name": f"soak, seed {self.seed}", "word": word, "text": str(self)}

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            **self.ledger.as_dict(),
            "holds": self.holds,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "steps": list(self.steps),
            "recoveries": len(self.recoveries),
            "recovered_later": {
                recovery.step: round(recovery.later, 1) for recovery in self.recovered_later
            },
            "not_recovered": [
                f"{recovery.step}: {recovery.verdict}" for recovery in self.not_recovered
            ],
            "incidents": [asdict(incident) for incident in self.incidents],
            "memory": {name: list(sizes) for name, sizes in self.memory.items()},
            "folder": str(self.folder),
        }

    def __str__(self) -> str:
        counts = Counter(step.partition(" ")[0] for step in self.steps)
        memory = ", ".join(
            f"{name} {sizes[0] / 1e6:.1f} → {sizes[-1] / 1e6:.1f} MB"
            for name, sizes in self.memory.items()
        )
        late = len(self.not_recovered) + len(self.recovered_later)
        in_time = len(self.recoveries) - late
        lines = [
            f"{'PASS' if self.holds else 'FAIL'}  soak of {self.seconds:.0f} s, seed {self.seed}",
            "  " + ", ".join(f"{number} {what}" for what, number in sorted(counts.items())),
            *(
                f"  at {one.at - self.began:.1f} s: {one.service} {one.what}: no step of the soak"
                for one in self.incidents
            ),
            str(self.ledger),
            f"  {in_time} of {len(self.recoveries)} splits recovered within fail_timeout + 1 s",
            *(
                f"  after {recovery.step}: UNSURE at first, recovered {recovery.later:.1f} s later"
                for recovery in self.recovered_later
            ),
            *(
                f"  not recovered after {recovery.step}: {recovery.verdict}"
                for recovery in self.not_recovered
            ),
            f"  memory: {memory}",
            f"  {self.folder}",
        ]
        return "\n".join(lines)


AnyOutcome: TypeAlias = Outcome | Loaded | Soaked


def short(full: Split) -> Split:
    """A split without the port that all its servers share: backend-1, not backend-1:8000."""
    names = {server: server.rsplit(":", 1)[0] for server in full.counts}
    ports = {server.rsplit(":", 1)[-1] for server in full.counts}
    return full.named(names) if ports == {PORT} else full


def with_method(verdict: Verdict, method: str) -> Verdict:
    """The verdict with the lab's name for the method: prompt_prefix for hash_consistent."""
    command = verdict.command.replace(verdict.method, method)
    return replace(verdict, method=method, command=command)
