"""Compute figures from joined requests: latency, throughput, fairness, goodput."""

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
    queued_ms    how long a request waited at its backend before it ran, as the journals say
    itl_ms       every gap between two consecutive tokens of a stream
    tpot_ms      the mean of those gaps, one value a stream (vLLM's time per output token)
    e2e_ms       end minus sent, of each request without an error
    good         requests without an error that met every target that can be asked of them;
                 goodput is good / second in which load was offered, good_share good / requests
    tokens_per_s, requests_per_s   tokens and requests without an error / second of the run
    busy_s       the sum of its requests' durations at the backend, so that ten at once for a
                 second are 10 s; busy_union_s the time in which it had at least one. Of all
                 backends: the sum of theirs
    late_ms      how far a request's tokens were behind the backend's model, at most: what this
                 machine added, as the journals say

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
    queued_ms: Spread = Spread()
    ttft_ms: Spread = Spread()
    tpot_ms: Spread = Spread()
    itl_ms: Spread = Spread()
    e2e_ms: Spread = Spread()
    good: int = 0
    goodput: float | None = None
    good_share: float | None = None
    tokens_per_s: float | None = None
    requests_per_s: float | None = None
    late_ms: Spread = Spread()
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
    """The figures of a run; `label` is the method or another name for it.

    `seconds` run from the first moment due to the last end; `offered_s` is the time in which load
    was offered, so that answers which come long after it do not lower the goodput. `lateness_ms`
    is how long after its moment a request was sent: the generator's own fault, to be small beside
    the other figures. `findings` counts what the sides of the join disagree about, `unexplained`
    those of them that no failure explains.
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
    offered_s: float | None = None


def figures(
    joined: Joined,
    targets: Targets = _NO_TARGETS,
    label: str = "",
    backends: Sequence[str] = (),
    offered: float | None = None,
) -> Figures:
    """The figures of a run. `backends` names those that count even if they had nothing to do.

    `offered` is how long load was offered, in seconds; None: from the first request due to the
    last.
    """
    records = [row.record for row in joined.rows if row.record]
    # without the backends' journals their side is unknown, which is not the same as empty
    ours = [row for row in joined.rows if row.record]
    entries = [e for row in ours for e in row.entries] if "backends" in joined.sides else None
    seconds = _seconds(records)
    times = (seconds, offered or _span_of_dues(records) or seconds)
    names = _names(backends, records, entries or ())
    groups = tuple(
        _group(
            name,
            [record for record in records if record.backend == name],
            None if entries is None else [entry for entry in entries if entry.backend == name],
            targets,
            *times,
        )
        for name in names
    )
    return Figures(
        label=label,
        seconds=seconds,
        offered_s=times[1],
        overall=_overall(_group("all", records, entries, targets, *times), len(records), groups),
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


def _span_of_dues(records: Sequence[Record]) -> float:
    dues = [record.due for record in records]
    return max(dues) - min(dues) if dues else 0.0


def _names(
    backends: Sequence[str], records: Iterable[Record], entries: Iterable[Entry]
) -> list[str]:
    """The named backends as given, then the others: backend-2 before backend-10."""
    seen = {record.backend for record in records} | {entry.backend for entry in entries}
    others = seen - {*backends, ""}
    return [*backends, *sorted(others, key=lambda name: (len(name), name))]


def _group(
    name: str,
    records: Sequence[Record],
    entries: Sequence[Entry] | None,
    targets: Targets,
    seconds: float | None,
    offered: float | None,
) -> Group:
    served: Sequence[Record | Entry] = records if entries is None else entries
    good = sum(is_good(record, targets) for record in records)
    prompt, cached = _cache(served)
    tokens = _sum([_tokens(one) for one in served])
    answered = sum(not record.error for record in records)
    return Group(
        name=name,
        requests=len(served),
        failed=sum(bool(record.error) for record in records),
        errors=dict(Counter(record.error for record in records if record.error).most_common()),
        tokens=tokens,
        prompt_tokens=prompt,
        cached_tokens=cached,
        cache_hit_rate=cached / prompt if prompt and cached is not None else None,
        ttft_ms=spread(ms for record in records if (ms := ttft_ms(record)) is not None),
        tpot_ms=spread(ms for record in records if (ms := mean_itl_ms(record)) is not None),
        queued_ms=spread(e.queued * 1e3 for e in entries or () if e.queued is not None),
        late_ms=spread(e.late * 1e3 for e in entries or () if e.late is not None),
        itl_ms=spread(_gaps_ms(records)),
        e2e_ms=spread(ms for record in records if (ms := e2e_ms(record)) is not None),
        good=good,
        goodput=good / offered if offered else None,
        tokens_per_s=tokens / seconds if seconds and tokens is not None else None,
        requests_per_s=answered / seconds if seconds else None,
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
    """The sum of the known values: 0 without values, None if there are values and none is known."""
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

_THROUGHPUT = (
    *("", "requests", "failed", "tokens", "req/s", "tok/s", "busy s"),
    *("cached", "good", "goodput/s"),
)
_LATENCY = (
    "",
    "queued ms 50 99 %",
    "TTFT ms 50 95 99 %",
    "TPOT ms 50 95 99 %",
    "ITL ms 50 95 99 %",
    "E2E ms 50 95 99 %",
)


def throughput(figures: Figures) -> list[tuple[str, ...]]:
    """Each backend's throughput as a table: the columns' names, a row each, and one for all."""
    return [_THROUGHPUT, *map(_throughput, _groups(figures))]


def latency(figures: Figures) -> list[tuple[str, ...]]:
    """Each backend's latencies as a table: the columns' names, a row each, one for all."""
    return [_LATENCY, *map(_latency, _groups(figures))]


def _groups(figures: Figures) -> tuple[Group, ...]:
    overall = replace(figures.overall, name=figures.label or figures.overall.name)
    return (*figures.backends, overall)


def _throughput(group: Group) -> tuple[str, ...]:
    return (
        group.name,
        f"{group.requests:,}",
        f"{group.failed:,}",
        _number(group.tokens, 0),
        _number(group.requests_per_s, 2),
        _number(group.tokens_per_s, 0),
        _number(group.busy_s, 1),
        _percent(group.cache_hit_rate),
        _percent(group.good_share),
        _number(group.goodput, 2),
    )


def _latency(group: Group) -> tuple[str, ...]:
    queued = group.queued_ms
    spreads = (group.ttft_ms, group.tpot_ms, group.itl_ms, group.e2e_ms)
    return (
        group.name,
        f"{_ms(queued.p50)} {_ms(queued.p99)}",
        *(f"{_ms(one.p50)} {_ms(one.p95)} {_ms(one.p99)}" for one in spreads),
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


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
