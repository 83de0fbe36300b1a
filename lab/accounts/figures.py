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

    requests     how many it served or tried to serve (for a backend: the lines in its journal)
    failed       how many of them failed for the client; `errors` by kind
    tokens       generated, by the journals; else received, by the clients
    prompt_tokens, cached_tokens   from the same source; cache_hit_rate is cached / prompt
    ttft_ms      first token minus sent, of each stream that had a first token
    queued_ms    how long a request waited at its backend before it ran, by the journals
    itl_ms       every gap between two consecutive tokens of a stream
    tpot_ms      the mean of those gaps, one value per stream (vLLM's time per output token)
    e2e_ms       end minus sent, of each request without an error
    good         requests without an error that met every applicable target; goodput is good
                 per second of offered load, good_share is good / requests
    tokens_per_s, requests_per_s   tokens, and requests without an error, per second of the run
    busy_s       the sum of its requests' durations at the backend: ten requests at once for 1 s
                 count as 10 s; busy_union_s is the time in which it had at least one. For all
                 backends: the sum of theirs
    late_ms      the longest delay of a request's tokens behind the backend's model, caused by
                 this machine, by the journals

    None means unknown, never zero.
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
    """The number of requests with a time to first token from `low_ms` up to `high_ms`."""

    low_ms: float
    high_ms: float
    count: int


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a run; `label` is the method or another name for it.

    `seconds` is the time from the first due time to the last end. `offered_s` is the time in which
    load was offered; late responses do not lower the goodput. `lateness_ms` is how late requests
    were sent, the generator's own delay, which should be small compared with the other figures.
    `findings` counts the disagreements between the logs, `unexplained` those that no failure
    explains.
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
    """The figures of a run. `backends` names those that count even if they had no requests.

    `offered` is how long load was offered, in seconds; None: from the first request due to the
    last.
    """
    records = [row.record for row in joined.rows if row.record]
    own_rows = [row for row in joined.rows if row.record]
    # without journals the backends' entries are unknown, which is not the same as none
    entries = [e for row in own_rows for e in row.entries] if "backends" in joined.sides else None
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
        fairness=fairness(groups),
        lateness_ms=spread((r.sent - r.due) * 1e3 for r in records if r.sent is not None),
        ttft_bins=bins([ms for record in records if (ms := ttft_ms(record)) is not None]),
        findings=joined.counts(),
        unexplained=len(joined.unexplained),
    )


def as_dict(figures: Figures) -> dict[str, Any]:
    """The figures as plain values, for JSON."""
    return asdict(figures)


def spread(values: Iterable[float]) -> Spread:
    """The percentiles of some values; see Spread."""
    return spread_of(np.fromiter(values, dtype=float))


def spread_of(array: npt.NDArray[np.float64], *, scratch: bool = False) -> Spread:
    """The percentiles of an array; see Spread. With `scratch` it is reordered, to save a copy."""
    if not array.size:
        return Spread()
    wanted = np.percentile(array, (50, 95, 99), method="linear", overwrite_input=scratch)
    p50, p95, p99 = (float(p) for p in wanted)
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

    A target that does not apply (the time between tokens, if there was one token) counts as met.
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
    """The total time that some spans (start, end) cover, in their unit."""
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
    tokens = _sum([_tokens(request) for request in served])
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


def fairness(groups: Sequence[Group]) -> Fairness:
    """The fairness between the backends with these figures; see Fairness."""
    return Fairness(
        requests=jain([group.requests for group in groups]),
        tokens=jain([group.tokens for group in groups]),
        busy=jain([group.busy_s for group in groups]),
    )


def jain(shares: Sequence[float | None]) -> float | None:
    """Jain's fairness index of some shares; None where one is unknown, or all are 0."""
    known = [share for share in shares if share is not None]
    squares = sum(share * share for share in known)
    if len(known) < len(shares) or not squares:
        return None
    return sum(known) ** 2 / (len(known) * squares)


def _tokens(request: Record | Entry) -> int | None:
    return request.tokens if isinstance(request, Record) else request.completion_tokens


def _cache(served: Iterable[Record | Entry]) -> tuple[int | None, int | None]:
    """Prompt tokens and cached ones, of the requests for which both are known."""
    both = [
        (request.prompt_tokens, request.cached_tokens)
        for request in served
        if request.prompt_tokens is not None and request.cached_tokens is not None
    ]
    return (sum(p for p, _ in both), sum(c for _, c in both)) if both else (None, None)


def _gaps_ms(records: Iterable[Record]) -> Iterable[float]:
    gaps = [np.diff(record.token_times) * 1e3 for record in records if record.token_times]
    return np.concatenate(gaps) if gaps else ()


def _span(entry: Entry) -> tuple[float, float]:
    return entry.t - entry.duration, entry.t


def _sum(values: Sequence[_N | None]) -> _N | None:
    """The sum of the known values: 0 without values, None if none of the values is known."""
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


# --- for people ---------------------------------------------------------------------------

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
    """The throughput as a table: the names of the columns, a row per backend, a row for all."""
    return [_THROUGHPUT, *map(_throughput, _groups(figures))]


def latency(figures: Figures) -> list[tuple[str, ...]]:
    """The latencies as a table: the names of the columns, a row per backend, a row for all."""
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
        *(f"{_ms(spread.p50)} {_ms(spread.p95)} {_ms(spread.p99)}" for spread in spreads),
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
    """The tokens of each backend as bars, and the times to first token as a histogram."""
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
    full_blocks, eighths = divmod(round(share * _BAR * 8), 8)
    return ("█" * full_blocks + _EIGHTHS[eighths]).ljust(_BAR + 1)


def _skyline(bins: Sequence[Bin], ttft: Spread) -> Iterator[str]:
    if not bins:
        return
    most = max(a_bin.count for a_bin in bins)
    # -(-a // b) rounds up: a bin that holds anything is seen
    heights = "".join(_HEIGHTS[-(-a_bin.count * 8 // most)] for a_bin in bins)
    yield f"time to first token   p50 {_ms(ttft.p50)} ms, p99 {_ms(ttft.p99)} ms"
    yield f"  {_ms(bins[0].low_ms)} ms {heights} {_ms(bins[-1].high_ms)} ms"
