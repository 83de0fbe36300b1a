"""The figures of a simulated run, the same as those of a live one."""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..accounts import figures
from ..accounts.figures import Fairness, Figures, Group, Spread
from ..traffic.scenario import Targets
from . import kernel
from .jobs import PICOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fast import Run

_MS = PICOSECONDS / 1000
_TOGETHER = 1_000_000  # requests
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lengths:
    """What the figures need of a workload: the tokens of each prompt and answer."""

    prompt: "kernel.Shorts"
    output: "kernel.Shorts"
    stream: bool


def figures_of(
    lengths: Lengths, run: "Run", targets: Targets, label: str, backends: "Sequence[str]"
) -> Figures:
    """Return the figures of a simulated run, for each backend and for all.

    One column of all requests is held at a time, in the order of the backends.
    """
    result = run.result
    order, parts = _by_backend(result, len(backends))
    seconds = _seconds(result)
    ttft = _ms(result.first, result.sent, order)
    ttft_bins = figures.bins(ttft) if lengths.stream else ()
    ttfts = [figures.spread_of(ttft[part]) for part in parts]
    del ttft
    e2e = _ms(result.last, result.sent, order)
    e2es = [figures.spread_of(e2e[part]) for part in parts]
    busy_sums = [float(e2e[part].sum() / 1e3) for part in parts]
    del e2e
    good = _sums(_good(lengths, result, targets, order), parts)
    tokens = _sums(lengths.output[order], parts)
    prompts = _sums(lengths.prompt[order], parts)
    cached = _sums(result.cached[order], parts)
    busy = run.state.servers["busy"]
    unions = [*(busy / PICOSECONDS).tolist(), float(busy.sum()) / PICOSECONDS]
    gaps = [Spread()] * len(backends) + [_gaps(run.state.gaps)]
    groups = [
        Group(
            name=name,
            requests=(requests := part.stop - part.start),
            tokens=tokens[place],
            prompt_tokens=prompts[place],
            cached_tokens=cached[place],
            cache_hit_rate=cached[place] / prompts[place] if prompts[place] else None,
            ttft_ms=ttfts[place],
            itl_ms=gaps[place],
            e2e_ms=e2es[place],
            good=good[place],
            goodput=good[place] / seconds if seconds else None,
            good_share=good[place] / requests if requests else None,
            busy_s=busy_sums[place],
            busy_union_s=unions[place],
        )
        for place, (name, part) in enumerate(zip([*backends, "all"], parts, strict=True))
    ]
    *single, overall = groups
    return Figures(
        label=label,
        seconds=seconds,
        overall=overall,
        backends=tuple(single),
        fairness=Fairness(
            figures.jain([group.requests for group in single]),
            figures.jain([group.tokens or 0 for group in single]),
            figures.jain([group.busy_s or 0.0 for group in single]),
        ),
        lateness_ms=Spread(),
        ttft_bins=ttft_bins,
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
    """Milliseconds from one moment to another, in an order."""
    spans: Floats = (end - start)[order] / _MS
    return spans


def _sums(values: "npt.NDArray[Any]", parts: "Sequence[slice]") -> list[int]:
    return [int(values[part].sum(dtype=np.int64)) for part in parts]


def _good(
    lengths: Lengths, result: kernel.Result, targets: Targets, order: "kernel.Shorts"
) -> Mask:
    """Whether each request met every target; a part at a time, for the memory."""
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


def _seconds(result: kernel.Result) -> float | None:
    last = int(result.last.max(initial=-1))
    if last < 0:
        return None
    first = int(result.sent.min(where=result.sent >= 0, initial=last))
    return (last - first) / PICOSECONDS


def _gaps(histogram: "kernel.Ints") -> Spread:
    """Percentiles of the times between two tokens, within 0.1 %; the longest is exact."""
    counts, longest = histogram[:-1], int(histogram[-1])
    total = int(counts.sum())
    if not total:
        return Spread()
    reached = np.searchsorted(np.cumsum(counts), np.array([0.5, 0.95, 0.99]) * total)
    p50, p95, p99 = (float(np.exp((at + 0.5) / kernel.GAP_SCALE) / _MS) for at in reached)
    return Spread(total, p50, p95, p99, longest / _MS)
