"""The figures of a simulated run, the same as those of a live one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    from .jobs import Workload

_MS = PICOSECONDS / 1000
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Times:
    """The times of the requests that were answered, in ms, and their other figures."""

    backend: "kernel.Shorts"
    ttft: Floats
    itl: Floats  # the mean of each answer; NaN with one token
    e2e: Floats
    prompt: "kernel.Shorts"
    output: "kernel.Shorts"
    cached: "kernel.Shorts"
    good: Mask


def figures_of(
    work: "Workload", run: "Run", targets: Targets, label: str, backends: "Sequence[str]"
) -> Figures:
    """The figures of a simulated run, for each backend and for all."""
    sent = run.result.last >= 0
    times = _times(work, run.result, sent, targets)
    seconds = _seconds(run.result, sent)
    by_backend = np.argsort(times.backend, kind="stable")
    edges = np.searchsorted(times.backend[by_backend], np.arange(len(backends) + 1))
    groups = tuple(
        _group(name, times, by_backend[start:stop], seconds, int(busy) / PICOSECONDS)
        for name, start, stop, busy in zip(
            backends, edges, edges[1:], run.state.servers["busy"], strict=False
        )
    )
    everything = np.arange(len(times.ttft))
    busy = float(run.state.servers["busy"].sum()) / PICOSECONDS
    overall = _group("all", times, everything, seconds, busy, _gaps(run.state.gaps))
    return Figures(
        label=label,
        seconds=seconds,
        overall=overall,
        backends=groups,
        fairness=Fairness(
            figures.jain([group.requests for group in groups]),
            figures.jain([group.tokens or 0 for group in groups]),
            figures.jain([group.busy_s or 0.0 for group in groups]),
        ),
        lateness_ms=Spread(),
        ttft_bins=figures.bins(times.ttft) if work.stream else (),
    )


def _times(work: "Workload", result: kernel.Result, sent: Mask, targets: Targets) -> Times:
    output = work.output[sent]
    ttft = (result.first[sent] - result.sent[sent]) / _MS
    e2e = (result.last[sent] - result.sent[sent]) / _MS
    with np.errstate(invalid="ignore", divide="ignore"):
        itl = np.where(output > 1, (e2e - ttft) / (output - 1), np.nan)
    good = np.ones(len(ttft), bool)
    for values, target in ((ttft, targets.ttft_ms), (itl, targets.itl_ms), (e2e, targets.e2e_ms)):
        # without a stream the client sees the end only
        if target is not None and (work.stream or values is e2e):
            good &= ~(values > target)
    return Times(
        result.backend[sent],
        ttft,
        itl,
        e2e,
        work.prompt[sent],
        output,
        result.cached[sent],
        good,
    )


def _group(
    name: str,
    times: Times,
    rows: npt.NDArray[np.intp],
    seconds: float | None,
    busy: float,
    gaps: Spread | None = None,
) -> Group:
    prompt, cached = int(times.prompt[rows].sum()), int(times.cached[rows].sum())
    good = int(times.good[rows].sum())
    return Group(
        name=name,
        requests=len(rows),
        tokens=int(times.output[rows].sum()),
        prompt_tokens=prompt,
        cached_tokens=cached,
        cache_hit_rate=cached / prompt if prompt else None,
        ttft_ms=figures.spread_of(times.ttft[rows]),
        itl_ms=gaps or Spread(),
        e2e_ms=figures.spread_of(times.e2e[rows]),
        good=good,
        goodput=good / seconds if seconds else None,
        good_share=good / len(rows) if len(rows) else None,
        busy_s=float(times.e2e[rows].sum() / 1e3),
        busy_union_s=busy,
    )


def _seconds(result: kernel.Result, sent: Mask) -> float | None:
    if not sent.any():
        return None
    return float(result.last[sent].max() - result.sent[sent].min()) / PICOSECONDS


def _gaps(histogram: "kernel.Ints") -> Spread:
    """Percentiles of the times between two tokens, within 0.1 %; the longest is exact."""
    counts, longest = histogram[:-1], int(histogram[-1])
    total = int(counts.sum())
    if not total:
        return Spread()
    reached = np.searchsorted(np.cumsum(counts), np.array([0.5, 0.95, 0.99]) * total)
    p50, p95, p99 = (float(np.exp((at + 0.5) / kernel.GAP_SCALE) / _MS) for at in reached)
    return Spread(total, p50, p95, p99, longest / _MS)
