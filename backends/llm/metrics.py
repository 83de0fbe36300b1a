"""Prometheus text under the names that vLLM's dashboards use."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .engine import Engine

# upper bounds in seconds, as vLLM has them
_LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_BETWEEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)


class Histogram:
    """Counts of values up to each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield the histogram in Prometheus's text format."""
        yield f"# TYPE {name} histogram"
        running = 0
        bounds = [*map(str, self.bounds), "+Inf"]
        for bound, number in zip(bounds, self.counts, strict=True):
            running += number
            yield f'{name}_bucket{{{labels},le="{bound}"}} {running}'
        yield f"{name}_sum{{{labels}}} {self.total:.6f}"
        yield f"{name}_count{{{labels}}} {running}"


@dataclass(slots=True)
class Metrics:
    """What a backend has counted since it started; times in real seconds."""

    model: str
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    first_token: Histogram = field(default_factory=lambda: Histogram(_FIRST_TOKEN))
    between: Histogram = field(default_factory=lambda: Histogram(_BETWEEN))
    latency: Histogram = field(default_factory=lambda: Histogram(_LATENCY))
    queue: Histogram = field(default_factory=lambda: Histogram(_LATENCY))

    def text(self, engine: Engine) -> str:
        """Write all of it, with the engine's present state."""
        labels = f'model_name="{self.model}"'
        return "\n".join(self._lines(engine, labels)) + "\n"

    def _lines(self, engine: Engine, labels: str) -> Iterator[str]:
        gauges: dict[str, float] = {
            "num_requests_running": engine.running,
            "num_requests_waiting": engine.waiting,
            "gpu_cache_usage_perc": round(engine.cache_usage, 6),
            "kv_cache_usage_perc": round(engine.cache_usage, 6),
        }
        for name, value in gauges.items():
            yield f"# TYPE vllm:{name} gauge"
            yield f"vllm:{name}{{{labels}}} {value}"
        counters = {
            "prompt_tokens_total": self.prompt_tokens,
            "generation_tokens_total": self.generation_tokens,
            "prefix_cache_queries_total": engine.prompt_tokens,
            "prefix_cache_hits_total": engine.cached_tokens,
        }
        for name, value in counters.items():
            yield f"# TYPE vllm:{name} counter"
            yield f"vllm:{name}{{{labels}}} {value}"
        yield "# TYPE vllm:request_success_total counter"
        for reason in ("stop", "length", "abort"):
            finished = self.finished[reason]
            yield f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {finished}'
        yield from self.first_token.lines("vllm:time_to_first_token_seconds", labels)
        yield from self.between.lines("vllm:time_per_output_token_seconds", labels)
        yield from self.between.lines("vllm:inter_token_latency_seconds", labels)
        yield from self.latency.lines("vllm:e2e_request_latency_seconds", labels)
        yield from self.queue.lines("vllm:request_queue_time_seconds", labels)
