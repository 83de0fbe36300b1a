"""Run folders as the sections of a report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .. import oracle
from ..accounts import figures
from ..accounts.figures import Group
from ..accounts.judging import judge
from ..accounts.outcome import AnyOutcome, Loaded, Outcome, Soaked, short
from ..accounts.scorecard import RUNS, Contest, Scorecard, read_runs
from ..errors import UsageError
from ..evidence import access_log, folder
from ..evidence.access_log import Hit
from ..evidence.folder import Evidence
from ..evidence.journal import Entry
from ..evidence.record import Record
from ..evidence.split import Split
from ..evidence.timeline import FIRST_CLAIM, Event, Timeline
from ..nginxconf import upstream
from ..nginxconf.model import Upstream
from ..verdict import replay
from .page import Cell, HeatMap, Page, Section, Share, Table, number
from .pictures import Mark

STEPS = 400  # moments of a timeline at which the requests in flight are counted
MOST_VALUES = 20_000  # of a distribution: more values do not change the picture
MOST_NOTES = 20
HEATED = ("ttft_p50_ms", "ttft_p99_ms", "e2e_p99_ms", "goodput", "fair_tokens")
FIGURES = (
    *("backend", "requests", "failed", "tokens", "busy s"),
    *("TTFT p50 ms", "TTFT p95 ms", "TTFT p99 ms"),
    *("ITL p50 ms", "ITL p95 ms", "ITL p99 ms"),
    *("E2E p50 ms", "E2E p99 ms", "cache hit rate", "goodput /s"),
)


def page(title: str, places: Sequence[Path]) -> Page:
    """A report of run folders, in the given order; a folder of run folders means all of them.

    A folder that cannot be read is named on the page; UsageError if none can be read.
    """
    sections: list[Section] = []
    cards: list[HeatMap] = []
    errors: list[UsageError] = []
    for run in (run for place in places for run in runs_in(place)):
        try:
            if (run / RUNS).exists():
                cards += heat_maps(run)
            else:
                sections.append(section(run))
        except UsageError as error:
            errors.append(error)
    if errors and not sections and not cards:
        raise errors[0]
    return Page(title, tuple(sections), tuple(cards), tuple(error.message for error in errors))


def heat_maps(place: Path) -> Iterator[HeatMap]:
    """A comparison's scorecard: a heat map for each of the main measures."""
    card = Scorecard(tuple(read_runs(place)), {})
    if not card.runs:
        raise UsageError(
            f"{place / RUNS} has no finished run",
            f"lab compare --resume {place}, or another folder",
        )
    contests = list(card.contests())
    for measure in HEATED:
        by_scenario = {
            contest.scenario: contest for contest in contests if contest.measure == measure
        }
        if by_scenario:
            rows = tuple(
                (method, tuple(_cell(contest, method) for contest in by_scenario.values()))
                for method in card.methods
            )
            yield HeatMap(f"{measure}, {place.name}", tuple(by_scenario), rows)


def _cell(contest: Contest, method: str) -> Cell:
    """A method's mean, its position between the best and the worst, and whether it wins."""
    if method not in contest.means:
        return Cell("", 0.0)
    means = contest.means.values()
    best, span = contest.means[contest.best[0]], max(means) - min(means)
    shade = abs(contest.means[method] - best) / span if span else 0.0
    note = "best" if contest.best == (method,) else "tie" if method in contest.best else ""
    return Cell(number(contest.means[method]), round(shade, 3), note)


def runs_in(place: Path) -> list[Path]:
    """The folder itself if it is a run folder, else the run folders in it, by name."""
    if is_run(place):
        return [place]
    runs = sorted(
        inner for inner in place.glob("*") if is_run(inner) and not folder.is_simulated(inner)
    )
    if not runs:
        raise UsageError(f'no run folder at "{place}"', "lab report .lab/runs/<time>-<method>")
    return runs


def is_run(place: Path) -> bool:
    """Whether a folder is that of a run or a comparison."""
    return (place / folder.RUN).exists() or (place / RUNS).exists()


def section(place: Path) -> Section:
    """Read a run folder and recompute its verdict; a UsageError names what is missing."""
    evidence = folder.read(place)
    outcome = judge(place)
    entries = evidence.entries()
    return Section(
        title=title(evidence),
        folder=str(place),
        word=outcome.case()["word"],
        verdict=verdict_line(outcome),
        split=split(evidence, upstream.read(place / FIRST_CLAIM)),
        tables=tables(outcome),
        notes=notes(outcome),
        ttft_ms=by_backend(evidence.records, first_token),
        itl_ms=by_backend(evidence.records, between_tokens),
        lanes=lanes(entries),
        marks=marks(evidence.timeline, entries),
        config=evidence.claim,
        evidence=tuple(sorted(file.name for file in place.iterdir() if file.is_file())),
    )


def verdict_line(outcome: AnyOutcome) -> str:
    """The verdict on nginx's picks; of a soak, how many splits recovered.

    A load's word (PASS or FAIL) is about its requests. The word on nginx's picks may differ, so the
    line of a load includes it.
    """
    if isinstance(outcome, Soaked):
        recovered = len(outcome.recoveries) - len(outcome.not_recovered)
        return f"{recovered} of {len(outcome.recoveries)} splits recovered, seed {outcome.seed}"
    line = f"{outcome.verdict.method}  {outcome.verdict.numbers}"
    return f"picks {outcome.verdict.word}: {line}" if isinstance(outcome, Loaded) else line


def title(evidence: Evidence) -> str:
    """The run in a few words: the traffic and the method."""
    return f"{evidence.traffic} by {evidence.method}"


def split(evidence: Evidence, claim: Upstream) -> tuple[Share, ...]:
    """Each server's requests as nginx logged them, and as the oracle predicts them."""
    log = evidence.log()
    hits = list(access_log.named(log.hits, evidence.addresses))
    observed = short(Split.of(_counted(claim, hits)))
    predicted = expected(claim, hits)
    ordered = in_order(predicted)
    names = short(Split.of(dict.fromkeys(ordered, 0))).counts
    values = dict(zip(names, (predicted[name] for name in ordered), strict=True))
    return tuple(
        Share(name, observed.counts.get(name, 0), values.get(name))
        for name in dict.fromkeys((*values, *observed.counts))
    )


def in_order(counts: Mapping[str, float]) -> list[str]:
    """The servers in the order in which a Split shows them."""
    return list(Split.of(dict.fromkeys(counts, 0)).counts)


def _counted(claim: Upstream, hits: Sequence[Hit]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for hit in hits:
        server = replay.seen(claim, hit).server or "no live upstreams"
        counts[server] = counts.get(server, 0) + 1
    return counts


def expected(claim: Upstream, hits: Sequence[Hit]) -> dict[str, float]:
    """How many of these requests each server gets by the oracle; draws count by probability."""
    counts = {server.name: 0.0 for server in claim.servers}
    sent = sorted(hits, key=replay.start)
    arrivals = (replay.arrival(claim, hit, lasting=True) for hit in sent)
    for pick in oracle.predict(claim, arrivals):
        chances = {name: chance for name, chance in pick.candidates.items() if chance is not None}
        if not chances and pick.server is not None:
            chances = {pick.server: 1.0}
        for name, chance in chances.items():
            counts[name] += chance
    return counts


# --- tables and notes ---------------------------------------------------------------------


def tables(outcome: AnyOutcome) -> tuple[Table, ...]:
    """The figures of a load by backend, and how fair it was; nothing for a plain run."""
    if not isinstance(outcome, Loaded):
        return ()
    groups = (*outcome.figures.backends, outcome.figures.overall)
    fairness = asdict(outcome.figures.fairness)
    fair = Table("Fairness (Jain's index)", tuple(fairness), (tuple(fairness.values()),))
    return (Table("Figures by backend", FIGURES, tuple(_row(group) for group in groups)), fair)


def _row(group: Group) -> tuple[str | float | int | None, ...]:
    ttft, itl, e2e = group.ttft_ms, group.itl_ms, group.e2e_ms
    return (
        *(group.name, group.requests, group.failed, group.tokens, group.busy_s),
        *(ttft.p50, ttft.p95, ttft.p99, itl.p50, itl.p95, itl.p99),
        *(e2e.p50, e2e.p99, group.cache_hit_rate, group.goodput),
    )


def notes(outcome: AnyOutcome) -> tuple[str, ...]:
    """Disagreements between the logs and the fates of the requests, at most MOST_NOTES."""
    if isinstance(outcome, Outcome):
        return (str(outcome.counts),)
    if isinstance(outcome, Soaked):
        return tuple(str(outcome).splitlines()[:MOST_NOTES])
    findings = [f"{name}: {count}" for name, count in outcome.figures.findings.items()]
    return (*findings[:MOST_NOTES], *str(outcome.ledger).splitlines())


# --- series for the pictures --------------------------------------------------------------


def by_backend(
    records: Sequence[Record], values_of: Callable[[Record], Sequence[float]]
) -> dict[str, list[float]]:
    """Values of the records by the backend that answered; long series are thinned evenly."""
    series: dict[str, list[float]] = {}
    for record in records:
        if record.backend:
            series.setdefault(record.backend, []).extend(values_of(record))
    return {name: _thinned(series[name]) for name in in_order(dict.fromkeys(series, 0.0))}


def first_token(record: Record) -> list[float]:
    """The time to the first token."""
    value = figures.ttft_ms(record)
    return [] if value is None else [value]


def between_tokens(record: Record) -> list[float]:
    """The gaps between the tokens."""
    return (np.diff(record.token_times) * 1e3).tolist() if record.token_times else []


def _thinned(values: Sequence[float]) -> list[float]:
    step = -(-len(values) // MOST_VALUES) or 1
    return list(values[::step])


def lanes(entries: Sequence[Entry]) -> dict[str, list[tuple[float, int]]]:
    """How many requests each backend had in flight, at STEPS moments of the run."""
    timed = [entry for entry in entries if entry.start]
    if not timed:
        return {}
    first = min(entry.start for entry in timed)
    last = max(entry.start + entry.duration for entry in timed)
    moments = np.linspace(first, last, STEPS)
    names = in_order({entry.backend: 0.0 for entry in timed})
    return {name: _lane([e for e in timed if e.backend == name], moments) for name in names}


def _lane(entries: Sequence[Entry], moments: npt.NDArray[np.float64]) -> list[tuple[float, int]]:
    starts = np.sort([entry.start for entry in entries])
    ends = np.sort([entry.start + entry.duration for entry in entries])
    open_ = np.searchsorted(starts, moments, "right") - np.searchsorted(ends, moments, "right")
    return list(zip((moments - moments[0]).tolist(), open_.tolist(), strict=True))


def marks(timeline: Timeline | None, entries: Sequence[Entry]) -> tuple[Mark, ...]:
    """The events of a run, in seconds after the first request reached a backend."""
    if timeline is None:
        return ()
    first = min((entry.start for entry in entries if entry.start), default=timeline.began)
    return tuple(
        Mark(timeline.began + done.began - first, in_words(done.event)) for done in timeline.done
    )


def in_words(event: Event) -> str:
    """An event in a few words: kill backend-2, use least_conn, scale 5."""
    if event.do == "fault":
        return f"{event.kind} {event.backend}"
    if event.do == "heal":
        return f"heal {event.backend}"
    return " ".join(filter(None, (event.do, event.method, str(event.backends or ""))))
