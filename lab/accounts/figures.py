"""From joined requests to figures: how fast, how fair, how good."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..evidence.journal import Entry
from ..evidence.record import Record
from ..traffic.scenario import Targets
from .join import Joined

_N = TypeVar("_N", int, float)
_NO_TARGETS = Targets()
_BINS = 24
_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of `n` values, interpolated between neighbours (Hyndman and Fan's type 7).

    None where there is no value.
    """

    n: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of one backend, or of all.

    requests     how many it answered or tried to (a backend: the lines in its journal)
    failed       how many of them the client saw fail; `errors` by kind
    tokens       produced, as the journals say, else received, as the clients say
    prompt_tokens, cached_tokens   from the same source; cache_hit_rate is cached / prompt
    ttft_ms      first token minus sent, of each stream that had a first token
    itl_ms       every gap between two consecutive tokens of a stream
    e2e_ms       end minus sent, of each request without an error
    good         requests without an error that met every target that can be asked of them;
                 goodput is good / second of the run, good_share is good / requests
    busy_s       the sum of its requests' durations at the backend; busy_union_s the time in which
                 it had at least one. Of all backends: the sum of theirs

    None is unknown, never zero.
    """

    name: str
    requests: int = 0
    failed: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    cache_hit_rate: float | None = None
    ttft_ms: Spread = Spread()
    itl_ms: Spread = Spread()
    e2e_ms: Spread = Spread()
    good: int = 0
    goodput: float | None = None
    good_share: float | None = None
    busy_s: float | None = None
    busy_union_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fairness:
    """Jain's index of the backends' shares: 1 if all are equal, 1/n if one has it all.

    (sum of x)² / (n · sum of x²), after Jain, Chiu and Hawe, 1984. None if nothing was shared.
    """

    requests: float | None = None
    tokens: float | None = None
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class Bin:
    """How many requests had a time to the first token from `low_ms` up to `high_ms`."""

    low_ms: float
    high_ms: float
    count: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to; `label` is the method or whatever else tells it from others.

    `seconds` run from the first moment due to the last end. `lateness_ms` is how long after its
    moment a request was sent: the generator's own fault, to be small beside the other figures.
    `findings` counts what the sides of the join disagree about, `unexplained` those of them that
    no failure explains.
    """

    label: str
    seconds: float | None
    overall: Group
    backends: tuple[Group, ...]
    fairness: Fairness
    lateness_ms: Spread
    ttft_bins: tuple[Bin, ...] = ()
    findings: Mapping[str, int] = field(default_factory=dict)
    unexplained: int = 0


def figures(
    joined: Joined, targets: Targets = _NO_TARGETS, label: str = "", backends: Sequence[str] = ()
) -> Figures:
    """The figures of a run. `backends` names those that count even if they had nothing to do."""
    records = [row.record for row in joined.rows if row.record]
    # without the backends' journals their side is unknown, which is not the same as empty
    ours = [row for row in joined.rows if row.record]
    entries = [e for row in ours for e in row.entries] if "backends" in joined.sides else None
    seconds = _seconds(records)
    names = _names(backends, records, entries or ())
    groups = tuple(
        _group(
            name,
            [record for record in records if record.backend == name],
            None if entries is None else [entry for entry in entries if entry.backend == name],
            targets,
            seconds,
        )
        for name in names
    )
    return Figures(
        label=label,
        seconds=seconds,
        overall=_overall(_group("all", records, entries, targets, seconds), len(records), groups),
        backends=groups,
        fairness=_fairness(groups),
        lateness_ms=spread((r.sent - r.due) * 1e3 for r in records if r.sent is not None),
        ttft_bins=bins([ms for record in records if (ms := ttft_ms(record)) is not None]),
        findings=joined.counts(),
        unexplained=len(joined.unexplained),
    )


def as_dict(figures: Figures) -> dict[str, Any]:
    """The figures as JSON takes them."""
    return asdict(figures)


def jain(shares: Iterable[float]) -> float | None:
    """Jain's fairness index of some shares; see Fairness."""
    values = list(shares)
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None


def spread(values: Iterable[float]) -> Spread:
    """The percentiles of some values; see Spread."""
    return spread_of(np.fromiter(values, dtype=float))


def spread_of(array: npt.NDArray[np.float64]) -> Spread:
    """The percentiles of an array; see Spread."""
    if not array.size:
        return Spread()
    p50, p95, p99 = (float(p) for p in np.percentile(array, (50, 95, 99), method="linear"))
    return Spread(array.size, p50, p95, p99, float(array.max()))


def ttft_ms(record: Record) -> float | None:
    """The time to the first token, in ms; None without a token or a stream."""
    if record.first_token is None or record.sent is None:
        return None
    return (record.first_token - record.sent) * 1e3


def mean_itl_ms(record: Record) -> float | None:
    """The mean time between two tokens of one answer, in ms; None with fewer than two."""
    times = record.token_times
    return (times[-1] - times[0]) / (len(times) - 1) * 1e3 if len(times) > 1 else None


def e2e_ms(record: Record) -> float | None:
    """The time of the whole request, in ms; None for one that failed."""
    if record.error or record.end is None or record.sent is None:
        return None
    return (record.end - record.sent) * 1e3


def is_good(record: Record, targets: Targets) -> bool:
    """Whether a request had no error and met its targets.

    A target that cannot be asked of it (the time between tokens, where there was one token) is
    met.
    """
    if record.error:
        return False
    measured = (
        (ttft_ms(record), targets.ttft_ms),
        (mean_itl_ms(record), targets.itl_ms),
        (e2e_ms(record), targets.e2e_ms),
    )
    return all(ms is None or target is None or ms <= target for ms, target in measured)


def union(spans: Iterable[tuple[float, float]]) -> float:
    """The length of time that some spans (start, end) cover together, in their unit."""
    covered, reached = 0.0, -np.inf
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


def _seconds(records: Sequence[Record]) -> float | None:
    ends = [record.end for record in records if record.end is not None]
    return max(ends) - min(record.due for record in records) if ends else None


def _names(
    backends: Sequence[str], records: Iterable[Record], entries: Iterable[Entry]
) -> list[str]:
    """The named backends as given, then whoever else appeared: backend-2 before backend-10."""
    seen = {record.backend for record in records} | {entry.backend for entry in entries}
    others = seen - {*backends, ""}
    return [*backends, *sorted(others, key=lambda name: (len(name), name))]


def _group(
    name: str,
    records: Sequence[Record],
    entries: Sequence[Entry] | None,
    targets: Targets,
    seconds: float | None,
) -> Group:
    served: Sequence[Record | Entry] = records if entries is None else entries
    good = sum(is_good(record, targets) for record in records)
    prompt, cached = _cache(served)
    return Group(
        name=name,
        requests=len(served),
        failed=sum(bool(record.error) for record in records),
        errors=dict(Counter(record.error for record in records if record.error).most_common()),
        tokens=_sum([_tokens(one) for one in served]),
        prompt_tokens=prompt,
        cached_tokens=cached,
        cache_hit_rate=cached / prompt if prompt and cached is not None else None,
        ttft_ms=spread(ms for record in records if (ms := ttft_ms(record)) is not None),
        itl_ms=spread(_gaps_ms(records)),
        e2e_ms=spread(ms for record in records if (ms := e2e_ms(record)) is not None),
        good=good,
        goodput=good / seconds if seconds else None,
        good_share=good / len(records) if records else None,
        busy_s=None if entries is None else sum(entry.duration for entry in entries),
        busy_union_s=None if entries is None else union(map(_span, entries)),
    )


def _overall(group: Group, requests: int, backends: Sequence[Group]) -> Group:
    """All backends' figures: a request counts once, however many backends tried it."""
    busy = None if group.busy_union_s is None else _sum([g.busy_union_s for g in backends])
    return replace(group, requests=requests, busy_union_s=busy)


def _fairness(groups: Sequence[Group]) -> Fairness:
    return Fairness(
        requests=_jain([group.requests for group in groups]),
        tokens=_jain([group.tokens for group in groups]),
        busy=_jain([group.busy_s for group in groups]),
    )


def _jain(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return jain(known) if len(known) == len(shares) else None


def _tokens(one: Record | Entry) -> int | None:
    return one.tokens if isinstance(one, Record) else one.completion_tokens


def _cache(served: Iterable[Record | Entry]) -> tuple[int | None, int | None]:
    """Prompt tokens and cached ones, of the requests for which both are known."""
    both = [
        (one.prompt_tokens, one.cached_tokens)
        for one in served
        if one.prompt_tokens is not None and one.cached_tokens is not None
    ]
    return (sum(p for p, _ in both), sum(c for _, c in both)) if both else (None, None)


def _gaps_ms(records: Iterable[Record]) -> Iterable[float]:
    gaps = [np.diff(record.token_times) * 1e3 for record in records if record.token_times]
    return np.concatenate(gaps) if gaps else ()


def _span(entry: Entry) -> tuple[float, float]:
    return entry.t - entry.duration, entry.t


def _sum(values: Sequence[_N | None]) -> _N | None:
    """The sum of what is known: 0 of no values, None of values none of which is known."""
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None if values else 0


def bins(values: Sequence[float] | npt.NDArray[np.float64]) -> tuple[Bin, ...]:
    """Bins that grow by a constant factor, from the smallest value to the largest."""
    if not len(values):
        return ()
    low, high = max(float(np.min(values)), 0.001), max(float(np.max(values)), 0.001)
    edges = np.geomspace(low, high if high > low else low * 1.001, _BINS + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return tuple(
        Bin(float(start), float(end), int(count))
        for (start, end), count in zip(pairwise(edges), counts, strict=True)
    )


# Pictures: how people see the figures.

_COLUMNS = (
    "",
    "requests",
    "failed",
    "tokens",
    "busy s",
    "TTFT p50",
    "p95",
    "p99 ms",
    "ITL p50",
    "p95",
    "p99 ms",
    "E2E p50",
    "p95",
    "p99 ms",
    "cached",
    "good",
    "goodput/s",
)


def rows(figures: Figures) -> list[tuple[str, ...]]:
    """A table as text: the columns' names, a row for each backend, and one for all."""
    overall = replace(figures.overall, name=figures.label or figures.overall.name)
    return [_COLUMNS, *(_row(group) for group in (*figures.backends, overall))]


def _row(group: Group) -> tuple[str, ...]:
    spreads = (group.ttft_ms, group.itl_ms, group.e2e_ms)
    percentiles = [_ms(p) for one in spreads for p in (one.p50, one.p95, one.p99)]
    return (
        group.name,
        f"{group.requests:,}",
        f"{group.failed:,}",
        "-" if group.tokens is None else f"{group.tokens:,}",
        "-" if group.busy_s is None else f"{group.busy_s:,.1f}",
        *percentiles,
        _percent(group.cache_hit_rate),
        _percent(group.good_share),
        "-" if group.goodput is None else f"{group.goodput:,.2f}",
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def picture(figures: Figures) -> str:
    """The tokens of each backend as bars, and the times to the first token as a skyline."""
    return "\n".join([*_bars(figures), *_skyline(figures.ttft_bins, figures.overall.ttft_ms)])


def _bars(figures: Figures) -> Iterator[str]:
    most = max((group.tokens or 0 for group in figures.backends), default=0)
    width = max((len(group.name) for group in figures.backends), default=0)
    if most:
        fair = figures.fairness.tokens
        yield "tokens per backend" + ("" if fair is None else f"   fairness {fair:.3f}")
    for group in figures.backends:
        if most and group.tokens is not None:
            yield f"  {group.name:<{width}} {_bar(group.tokens / most)} {group.tokens:,}"


def _bar(share: float) -> str:
    whole, eighths = divmod(round(share * _BAR * 8), 8)
    return ("█" * whole + _EIGHTHS[eighths]).ljust(_BAR + 1)


def _skyline(bins: Sequence[Bin], ttft: Spread) -> Iterator[str]:
    if not bins:
        return
    most = max(one.count for one in bins)
    # -(-a // b) rounds up: a bin that holds anything is seen
    heights = "".join(_HEIGHTS[-(-one.count * 8 // most)] for one in bins)
    yield f"time to first token   p50 {_ms(ttft.p50)} ms, p99 {_ms(ttft.p99)} ms"
    yield f"  {_ms(bins[0].low_ms)} ms {heights} {_ms(bins[-1].high_ms)} ms"
