"""Judge a run folder, whichever command wrote it. Needs no Docker."""

import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from .. import verdict
from ..errors import UsageError
from ..evidence import access_log, folder, journal, trace, typed
from ..evidence.access_log import Hit
from ..evidence.folder import Evidence, Kind
from ..evidence.journal import Entry
from ..evidence.split import Split, split
from ..evidence.timeline import FIRST_CLAIM, Done, Event, Incident, Timeline, Window
from ..evidence.trace import Step
from ..fault_kinds import KINDS
from ..nginxconf import upstream
from ..nginxconf.model import Upstream
from ..traffic.scenario import Targets
from ..verdict import Verdict
from ..verdict.replay import start
from ..word import Word
from . import figures, join
from .fates import ALL, Call, Ledger, account, explain_lost_lines, named_by_tenure, of_record
from .faults import faults_of, rules_of
from .foreign import at_lab_door, in_words, judge_own_requests, own_ids, picks_are_independent
from .scorecard import RUNS, read_runs

PORT = "8000"  # of every backend of the lab
_NO_TARGETS = Targets()
MOST_LATE_MS = 20.0  # p99 lateness of a backend's tokens up to which its figures are sound
LONGEST = 600.0  # seconds that a request may have been open when a window begins
_MOST_NAMED = 5  # run folders in one error
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
    targets: Targets = _NO_TARGETS

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


_T = TypeVar("_T")
AnyOutcome: TypeAlias = Outcome | Loaded | Soaked


def judge(place: Path) -> AnyOutcome:
    """Recompute the result of a run folder, whichever command wrote it.

    A UsageError names what is missing or wrong in the folder. For a folder of several runs it names
    those that can be judged.
    """
    if not (place / folder.RUN).exists():
        _refuse_several(place)
    evidence = folder.read(place)
    return _JUDGES[evidence.kind](place, evidence)


def _refuse_several(place: Path) -> None:
    """Raise UsageError for the folder of a comparison, and for a folder of run folders."""
    if (place / RUNS).exists():
        runs = read_runs(place)
        what = f"{place} is a comparison of {len(runs)} finished runs, not a run folder"
        judged = [run.folder for run in runs if run.folder]
        otherwise = f"lab report {place}; its runs are simulated and have no logs to judge"
    else:
        listed = folder.list_runs(place)
        what = f"{place} is not a run folder; it contains {len(listed)}"
        judged = [str(run.path) for run in listed if run.kind != "simulated"]
        otherwise = "all of them are simulated and have no logs to judge"
        if not listed:
            return
    more = len(judged) - _MOST_NAMED
    others = "".join(f", or {path}" for path in judged[1:_MOST_NAMED])
    others += f", or one of {more} more" if more > 0 else ""
    raise UsageError(what, f"lab judge {judged[0]}{others}" if judged else otherwise)


# --- lab run ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _RunNotes:
    """The notes of `lab run` in run.json: requests of clients that return their cookies."""

    returning: int = 0


def judge_run(place: Path, evidence: Evidence | None = None) -> Outcome:
    """The outcome of a `lab run` from its folder."""
    evidence = evidence or folder.read(place)
    log = evidence.log()
    entries = evidence.entries()
    hits = tuple(access_log.named(log.hits, evidence.addresses))
    claim = upstream.read(place / FIRST_CLAIM)
    notes = _read(_RunNotes, evidence.notes, place / folder.RUN)

    def judge_hits(judged: Sequence[Hit], sequential: bool) -> Verdict:
        return verdict.judge(
            claim,
            judged,
            sequential=sequential,
            addresses={name: (address,) for address, name in evidence.addresses.items()},
            clock=math.ceil(folder.clock_lag(log.hits, entries)),
            order=picks_in_order(evidence, judged),
            returning=notes.returning,
            served=journal.served(entries),
            keys=keys_as_sent(evidence),
        )

    ids = own_ids(evidence, hits)
    result = judge_own_requests(claim, hits, ids, sequential=evidence.sequential, judge=judge_hits)
    changed = _restarted(evidence)
    if result.word == Word.FAIL and changed and not picks_are_independent(claim):
        result = replace(result, word=Word.UNSURE, why=f"{changed}: {result.why}")
    counts = _counts(evidence, hits, entries, ids)
    if result.word == Word.PASS and not counts.agree:
        result = replace(
            result, word=Word.UNSURE, why=f"the three counts differ; apart from that: {result.why}"
        )
    own_hits = [hit for hit in hits if hit.request_id in ids]
    return Outcome(
        place,
        evidence.method,
        evidence.traffic,
        short(split(own_hits)),
        counts,
        _with_method(result, evidence.method),
    )


def _restarted(evidence: Evidence) -> str:
    """What made nginx forget its turns and loads during a run; "" if nothing did."""
    incidents = evidence.timeline.incidents if evidence.timeline else ()
    return next((f"nginx {one.what}" for one in incidents if one.service == "nginx"), "")


def picks_in_order(evidence: Evidence, hits: Sequence[Hit]) -> Sequence[Step] | None:
    """nginx's own order of picks for these hits; None without a trace of all of them."""
    if not evidence.trace:
        return None
    order = trace.order(evidence.trace.splitlines(), hits)
    return None if order.gap else order.steps


# --- lab verify ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _VerifyNotes:
    """The notes of `lab verify` in run.json: the upstream, and whether nginx had just started."""

    upstream: str
    fresh: bool


def judge_verify(place: Path, evidence: Evidence) -> Outcome:
    """The outcome for one upstream of a `lab verify` from its folder."""
    notes = _read(_VerifyNotes, evidence.notes, place / folder.RUN)
    hits = evidence.log().hits
    entries = evidence.entries()
    addresses: dict[str, tuple[str, ...]] = {}
    for address, name in evidence.addresses.items():
        addresses[name] = (*addresses.get(name, ()), address)
    result = verdict.judge(
        upstream.read(place / FIRST_CLAIM, notes.upstream),
        hits,
        sequential=evidence.sequential,
        addresses=addresses,
        fresh=notes.fresh,
        order=picks_in_order(evidence, hits),
    )
    served = Split.of(Counter(entry.backend for entry in entries))
    counts = Counts(short(split(hits)), short(served), evidence.sent)
    return Outcome(place, evidence.method, evidence.traffic, short(split(hits)), counts, result)


def _with_method(verdict: Verdict, method: str) -> Verdict:
    """The verdict with the lab's name for the method: prompt_prefix for hash_consistent."""
    command = verdict.command.replace(verdict.method, method)
    return replace(verdict, method=method, command=command)


def _counts(
    evidence: Evidence, hits: Sequence[Hit], entries: Sequence[Entry], sent_ids: frozenset[str]
) -> Counts:
    own_hits = [hit for hit in hits if hit.request_id in sent_ids]
    logged = {hit.request_id for hit in own_hits}
    served = Counter(entry.backend for entry in entries if entry.id in logged)
    return Counts(
        short(split(own_hits)), Split.of(served), evidence.sent, foreign=len(hits) - len(own_hits)
    )


def short(full: Split) -> Split:
    """A split without the port that all its servers share: backend-1, not backend-1:8000."""
    names = {server: server.rsplit(":", 1)[0] for server in full.counts}
    ports = {server.rsplit(":", 1)[-1] for server in full.counts}
    return full.named(names) if ports == {PORT} else full


# --- lab load -----------------------------------------------------------------------------


def judge_load(place: Path, evidence: Evidence) -> Loaded:
    """The figures, fates and verdict of a `lab load` from its folder."""
    timeline = _timeline(place, evidence)
    scenario = _read(_Scenario, evidence.scenario or {}, place / folder.SCENARIO)
    notes = _read(_LoadNotes, evidence.notes, place / folder.RUN)
    lines, entries = _lines(evidence), evidence.entries()
    joined = join.join(evidence.records, *_own(evidence, lines, entries))
    findings = tuple(explain_lost_lines(joined.findings, calls_of(evidence), faults_of(timeline)))
    claim = upstream.read(place / FIRST_CLAIM)
    named = tuple(named_by_tenure(lines, timeline.tenures))
    names = sorted({tenure.backend for tenure in timeline.tenures}, key=lambda n: (len(n), n))
    return Loaded(
        folder=place,
        scenario=evidence.traffic,
        method=evidence.method,
        figures=figures.figures(
            replace(joined, findings=findings),
            scenario.targets,
            evidence.method,
            names,
            _offered(scenario, evidence),
        ),
        findings=findings,
        timeline=tuple(timeline.done),
        ledger=_ledger(evidence, timeline, named, entries, claim),
        verdict=_with_method(judge_windows(place, evidence, named, entries)[0][1], evidence.method),
        began=timeline.began,
        changed=notes.changed,
        skipped=scenario.timeline[len(timeline.done) :],
        incidents=tuple(timeline.incidents),
        targets=scenario.targets,
    )


@dataclass(frozen=True, slots=True)
class _LoadNotes:
    """The notes of a load in run.json."""

    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Scenario:
    """The fields of scenario.json that a load's outcome needs."""

    duration: float | None = None
    requests: int | None = None
    targets: Targets = _NO_TARGETS
    timeline: tuple[Event, ...] = ()


def _offered(scenario: _Scenario, evidence: Evidence) -> float | None:
    """How many seconds load was offered; None if the duration did not end it."""
    complete = scenario.requests is not None and len(evidence.records) >= scenario.requests
    return None if complete or evidence.interrupted else scenario.duration


# --- lab soak -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _SoakNotes:
    """The notes of a soak in run.json."""

    seed: int
    seconds: float
    steps: tuple[str, ...]
    memory: Mapping[str, tuple[int, ...]]


def judge_soak(place: Path, evidence: Evidence | None = None) -> Soaked:
    """The fates and recoveries of a `lab soak` from its folder."""
    evidence = evidence or folder.read(place)
    timeline = _timeline(place, evidence)
    entries = evidence.entries()
    named = tuple(named_by_tenure(_lines(evidence), timeline.tenures))
    claim = upstream.read(place / FIRST_CLAIM)
    notes = _read(_SoakNotes, evidence.notes, place / folder.RUN)
    return Soaked(
        folder=place,
        seed=notes.seed,
        seconds=notes.seconds,
        steps=notes.steps,
        memory=notes.memory,
        ledger=_ledger(evidence, timeline, named, entries, claim),
        recoveries=tuple(recoveries_of(judge_windows(place, evidence, named, entries))),
        began=timeline.began,
        incidents=tuple(timeline.incidents),
    )


def recoveries_of(judged: Iterable[tuple[Window, Verdict]]) -> Iterator[Recovery]:
    """One recovery for each step; a later window counts if all before it were UNSURE."""
    first, recovery = Window(0.0), None
    for window, result in judged:
        if not window.again:
            if recovery:
                yield recovery
            first, recovery = window, Recovery(window.after, result)
        elif recovery and recovery.verdict.word == Word.UNSURE:
            recovery = Recovery(window.after, result, window.start - first.start)
    if recovery:
        yield recovery


def judge_so_far(
    claim: Upstream, window: Window, access: bytes, journals: bytes, timeline: Timeline
) -> Verdict:
    """The verdict on a window while the run goes on, from the logs since its start."""
    lines = access_log.read(access.splitlines(keepends=True)).hits
    entries = journal.read(journals.splitlines()).entries
    named = named_by_tenure(lines, timeline.tenures)
    hits = sorted((line for line in named if isinstance(line, Hit)), key=start)
    served = journal.served(entries)
    known = at_lab_door(hits)
    return _judge_window(claim, window, hits, known, entries, timeline, served, {})


# --- shared by load and soak --------------------------------------------------------------


def calls_of(evidence: Evidence) -> list[Call]:
    """The calls of the records, without those held back because too many requests were open."""
    return [of_record(record) for record in evidence.records if record.error != "unsent"]


def judge_windows(
    place: Path,
    evidence: Evidence,
    lines: Sequence[join.Line],
    entries: Sequence[Entry],
) -> list[tuple[Window, Verdict]]:
    """The verdict on each window of the timeline; `lines` name the backends, not addresses.

    `lines` and `entries` include those of foreign requests, which take turns like any other.
    """
    timeline = _timeline(place, evidence)
    hits = sorted((line for line in lines if isinstance(line, Hit)), key=start)
    served = journal.served(entries)
    known, keys = _known(evidence), keys_as_sent(evidence)
    if evidence.interrupted:  # the requests that were cut off have no records
        known |= at_lab_door(hits)

    def judge_window(window: Window) -> Verdict:
        claim = _claim(place, evidence, window)
        return _judge_window(claim, window, hits, known, entries, timeline, served, keys)

    return [(window, judge_window(window)) for window in timeline.windows]


def _claim(place: Path, evidence: Evidence, window: Window) -> Upstream:
    if window.claim not in (FIRST_CLAIM, *evidence.claims):
        raise UsageError(
            f'{place}/{folder.TIMELINE} names the claim "{window.claim}", which is missing',
            "lab runs lists the run folders; judge another one",
        )
    return upstream.read(place / window.claim)


def _judge_window(
    claim: Upstream,
    window: Window,
    hits: Sequence[Hit],
    known: frozenset[str],
    entries: Sequence[Entry],
    timeline: Timeline,
    served: Mapping[str, tuple[float, float]],
    keys: Mapping[str, bytes],
) -> Verdict:
    """Judge the requests that began within a window; those already open count as load.

    `hits` are in the order of their start times, `served` has their times at the backends. Hits
    whose ids are not `known` are foreign requests.
    """
    names = {server.name.rpartition(":")[0]: server.name for server in claim.servers}
    addresses: dict[str, tuple[str, ...]] = {}
    for tenure in timeline.tenures:
        addresses.setdefault(names.get(tenure.backend, tenure.backend), (tenure.address,))
    first = bisect_left(hits, window.start - LONGEST, key=start)
    last = bisect_left(hits, math.inf if window.end is None else window.end, key=start)
    near = [hit for hit in hits[first:last] if hit.msec >= window.start - 1]
    begun = [hit for hit in near if start(hit) >= window.start]  # no fault delayed them

    def judge_hits(judged: Sequence[Hit], sequential: bool) -> Verdict:
        return verdict.judge(
            claim,
            judged,
            sequential=sequential,
            addresses=addresses,
            fresh=window.fresh,
            clock=math.ceil(folder.clock_lag(begun, entries)),
            since=-math.inf if window.fresh else window.start,
            served=served,
            keys=keys,
        )

    judged = tuple(access_log.named(near, names))
    return judge_own_requests(claim, judged, known, sequential=False, judge=judge_hits)


def _lines(evidence: Evidence) -> tuple[join.Line, ...]:
    """The lines of nginx's log, also those of foreign requests."""
    log = evidence.log()
    return (*log.hits, *log.unproxied)


def keys_as_sent(evidence: Evidence) -> dict[str, bytes]:
    """The hash key of each request as the client sent it, by the request's id, where it is known.

    Only until the first change of the upstream, whose key may be another.
    """
    if evidence.claims:
        return {}
    return {
        record.id: record.key.encode("latin-1", "replace")
        for record in evidence.records
        if record.key is not None
    }


def _known(evidence: Evidence) -> frozenset[str]:
    """The ids of the run's own requests."""
    return frozenset(record.id for record in evidence.records)


def _own(
    evidence: Evidence, lines: Iterable[join.Line], entries: Iterable[Entry]
) -> tuple[list[join.Line], list[Entry]]:
    """The lines and entries of the run's own requests."""
    known = _known(evidence)
    return (
        [line for line in lines if line.request_id in known],
        [entry for entry in entries if entry.id in known],
    )


def _ledger(
    evidence: Evidence,
    timeline: Timeline,
    lines: Sequence[join.Line],
    entries: Sequence[Entry],
    claim: Upstream,
) -> Ledger:
    """The fates of the run's own requests; foreign ones count towards a server's max_conns."""
    known, rules = _known(evidence), rules_of(claim, timeline)
    foreign = (line for line in lines if line.request_id not in known)
    own = _own(evidence, lines, entries)
    calls = calls_of(evidence)
    return account(calls, *own, faults_of(timeline), rules, timeline.began, foreign)


def _timeline(place: Path, evidence: Evidence) -> Timeline:
    if evidence.timeline is None or not (evidence.timeline.windows or evidence.interrupted):
        raise UsageError(f"{place}/{folder.TIMELINE} is missing, or names no window", "lab load")
    return evidence.timeline


def _read(kind: type[_T], value: Any, file: Path) -> _T:
    """The part of a JSON file that an outcome needs; a UsageError names file and field."""
    try:
        return typed.convert(kind, value)
    except typed.MisfitError as error:
        raise UsageError(
            f"{file} is not a valid run file: {error}",
            "lab runs lists the run folders; judge another one",
        ) from None


def write_figures(loaded: Loaded) -> None:
    """Write the figures beside the evidence from which they were computed."""
    text = json.dumps(loaded.as_dict(), indent=1, default=str)
    (loaded.folder / "figures.json").write_text(text)


_JUDGES: Mapping[Kind, Callable[[Path, Evidence], AnyOutcome]] = {
    "run": judge_run,
    "load": judge_load,
    "soak": judge_soak,
    "verify": judge_verify,
}
