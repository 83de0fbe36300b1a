"""The figures of a simulated run, the same as those of a live one."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..accounts import figures
from ..accounts.figures import Bin, Figures, Group, Spread
from ..backends.llm.engine import PICOSECONDS
from ..traffic.scenario import Targets
from . import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fast import Run

_MS = PICOSECONDS / 1000
_TOGETHER = 1_000_000  # requests
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lengths:
    """The part of a workload that the figures need: the tokens of each prompt and answer."""

    prompt: "kernel.Shorts"
    output: "kernel.Shorts"
    stream: bool


def figures_of(
    lengths: Lengths,
    run: "Run",
    targets: Targets,
    label: str,
    backends: "Sequence[str]",
    offered: float | None = None,
) -> Figures:
    """Return the figures of a simulated run, for each backend and for all.

    `offered` is how long load was offered, in seconds; None: from the first request to the last.
    The times of all requests need much memory, so each function here frees one kind of them before
    the next computes another.
    """
    result = run.result
    order, parts = _by_backend(result, len(backends))
    first, last_sent, end = _moments(result)
    seconds = end - first if len(order) else None
    offered = offered or last_sent - first or seconds
    ttft, ttft_bins = _first_tokens(lengths, result, order, parts)
    columns: dict[str, list[Any]] = {"ttft_ms": ttft}
    columns["queued_ms"] = [
        figures.spread_of(result.queued[order[part]].astype(float), scratch=True) for part in parts
    ]
    columns["tpot_ms"] = _tpots(lengths, result, order, parts)
    columns |= _durations(result, order, parts)
    columns |= _counts(lengths, result, targets, order, parts)
    busy = run.servers["busy"]
    columns["busy_union_s"] = [*(busy / PICOSECONDS).tolist(), float(busy.sum()) / PICOSECONDS]
    columns["itl_ms"] = [Spread()] * len(backends) + [_gaps(run.gaps)]
    *single, overall = (
        _group(name, {field: column[place] for field, column in columns.items()}, seconds, offered)
        for place, name in enumerate([*backends, "all"])
    )
    return Figures(
        label=label,
        seconds=seconds,
        offered_s=offered,
        overall=overall,
        backends=tuple(single),
        fairness=figures.fairness(single),
        lateness_ms=Spread(),
        ttft_bins=ttft_bins,
    )


def _first_tokens(
    lengths: Lengths, result: kernel.Result, order: "kernel.Shorts", parts: "Sequence[slice]"
) -> tuple[list[Spread], tuple[Bin, ...]]:
    """The percentiles of the times to first token, by part, and the bins of all streams."""
    ttft = _ms(result.first, result.sent, order)
    ttft_bins = figures.bins(ttft) if lengths.stream else ()
    return _spreads(ttft, parts), ttft_bins


def _durations(
    result: kernel.Result, order: "kernel.Shorts", parts: "Sequence[slice]"
) -> dict[str, list[Any]]:
    """The percentiles and the sums of the requests' whole durations, by part."""
    e2e = _ms(result.last, result.sent, order)
    return {
        "e2e_ms": _spreads(e2e, parts),
        "busy_s": [float(e2e[part].sum() / 1e3) for part in parts],
    }


def _counts(
    lengths: Lengths,
    result: kernel.Result,
    targets: Targets,
    order: "kernel.Shorts",
    parts: "Sequence[slice]",
) -> dict[str, list[Any]]:
    """Requests and tokens, by part."""
    return {
        "requests": [part.stop - part.start for part in parts],
        "good": _sums(_meets_targets(lengths, result, targets, order), parts),
        "tokens": _sums(lengths.output[order], parts),
        "prompt_tokens": _sums(lengths.prompt[order], parts),
        "cached_tokens": _sums(result.cached[order], parts),
    }


def _group(
    name: str, values: dict[str, Any], seconds: float | None, offered: float | None
) -> Group:
    """The figures of one backend, or of all, with the rates that follow from its counts."""
    requests, prompts, good = values["requests"], values["prompt_tokens"], values["good"]
    return Group(
        name=name,
        cache_hit_rate=values["cached_tokens"] / prompts if prompts else None,
        goodput=good / offered if offered else None,
        tokens_per_s=values["tokens"] / seconds if seconds else None,
        requests_per_s=requests / seconds if seconds else None,
        good_share=good / requests if requests else None,
        **values,
    )


def _by_backend(result: kernel.Result, backends: int) -> "tuple[kernel.Shorts, list[slice]]":
    """Return the answered requests in the order of their backends, and each backend's part.

    The last part has all of them.
    """
    order = np.argsort(result.backend, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(result.backend + 1, minlength=backends + 1))
    order = order[ends[0] :]  # -1: not sent
    edges = (ends - ends[0]).tolist()
    return order, [*(slice(a, b) for a, b in pairwise(edges)), slice(0, len(order))]


def _ms(end: "kernel.Ints", start: "kernel.Ints", order: "kernel.Shorts") -> Floats:
    """Milliseconds from `start` to `end`, in `order`; computed in parts, to save memory."""
    spans = np.empty(len(order))
    for at in range(0, len(order), _TOGETHER):
        part = order[at : at + _TOGETHER]
        spans[at : at + _TOGETHER] = (end[part] - start[part]) / _MS
    return spans


def _spreads(values: Floats, parts: "Sequence[slice]") -> list[Spread]:
    return [figures.spread_of(values[part]) for part in parts]


def _sums(values: "npt.NDArray[Any]", parts: "Sequence[slice]") -> list[int]:
    return [int(values[part].sum(dtype=np.int64)) for part in parts]


def _meets_targets(
    lengths: Lengths, result: kernel.Result, targets: Targets, order: "kernel.Shorts"
) -> Mask:
    """Whether each request met every target; computed in parts, to save memory."""
    parts = np.array_split(order, max(1, len(order) // _TOGETHER))
    return np.concatenate([_met(lengths, result, targets, part) for part in parts])


def _met(lengths: Lengths, result: kernel.Result, targets: Targets, order: "kernel.Shorts") -> Mask:
    output = lengths.output[order]
    sent = result.sent[order]
    ttft, e2e = (result.first[order] - sent) / _MS, (result.last[order] - sent) / _MS
    itl = np.where(output > 1, (e2e - ttft) / np.maximum(output - 1, 1), -np.inf)
    met = np.ones(len(order), bool)
    for values, target in ((ttft, targets.ttft_ms), (itl, targets.itl_ms), (e2e, targets.e2e_ms)):
        # without a stream the client sees the end only
        if target is not None and (lengths.stream or values is e2e):
            met &= values <= target
    return met


def _moments(result: kernel.Result) -> tuple[float, float, float]:
    """Return when the first request was sent, when the last one was, and the last end: seconds."""
    end = int(result.last.max(initial=0))
    first = int(result.sent.min(where=result.sent >= 0, initial=end))
    return first / PICOSECONDS, int(result.sent.max(initial=0)) / PICOSECONDS, end / PICOSECONDS


def _tpots(
    lengths: Lengths, result: kernel.Result, order: "kernel.Shorts", parts: "Sequence[slice]"
) -> list[Spread]:
    """Return the mean time between two tokens of each stream of at least two, in ms, spread."""
    if not lengths.stream:
        return [Spread()] * len(parts)
    steps = lengths.output[order] - 1
    tpot = _ms(result.last, result.first, order)
    tpot /= np.maximum(steps, 1)
    return [figures.spread_of(tpot[part][steps[part] > 0], scratch=True) for part in parts]


def _gaps(histogram: "kernel.Ints") -> Spread:
    """Percentiles of the times between two tokens, within 0.1 %; the longest is exact."""
    counts, longest = histogram[:-1], int(histogram[-1])
    total = int(counts.sum())
    if not total:
        return Spread()
    reached = np.searchsorted(np.cumsum(counts), np.array([0.5, 0.95, 0.99]) * total)
    p50, p95, p99 = (float(np.exp((at + 0.5) / kernel.GAP_SCALE) / _MS) for at in reached)
    return Spread(total, p50, p95, p99, longest / _MS)
