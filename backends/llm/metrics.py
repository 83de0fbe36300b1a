"""Prometheus metrics: vLLM's under vLLM's names, and how far the backend is behind its model.

Names, kinds and bounds follow `vllm/v1/metrics/loggers.py`. Two older names that dashboards still
use are kept: `gpu_cache_usage_perc` and `time_per_output_token_seconds`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .blocks import BLOCK_TOKENS
from .engine import Engine, Step

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
_LATE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# in tokens
_LENGTH = tuple(float(mark * 10**power) for power in range(6) for mark in (1, 2, 5))
_STEP = tuple(float(1 << power) for power in (0, *range(3, 15)))
_CHOICES = (1.0, 2.0, 5.0, 10.0, 20.0)

_HISTOGRAMS: Mapping[str, tuple[float, ...]] = {
    "vllm:time_to_first_token_seconds": _FIRST_TOKEN,
    "vllm:inter_token_latency_seconds": _BETWEEN,
    "vllm:time_per_output_token_seconds": _BETWEEN,
    "vllm:request_time_per_output_token_seconds": _BETWEEN,
    "vllm:e2e_request_latency_seconds": _LATENCY,
    "vllm:request_queue_time_seconds": _LATENCY,
    "vllm:request_inference_time_seconds": _LATENCY,
    "vllm:request_prefill_time_seconds": _LATENCY,
    "vllm:request_decode_time_seconds": _LATENCY,
    "vllm:request_prompt_tokens": _LENGTH,
    "vllm:request_generation_tokens": _LENGTH,
    "vllm:request_max_num_generation_tokens": _LENGTH,
    "vllm:request_params_max_tokens": _LENGTH,
    "vllm:request_params_n": _CHOICES,
    "vllm:iteration_tokens_total": _STEP,
    "lab:request_late_seconds": _LATE,
}
_HELP: Mapping[str, str] = {
    "vllm:num_requests_running": "Requests that the engine computes now.",
    "vllm:num_requests_waiting": "Requests that wait in the queue now.",
    "vllm:kv_cache_usage_perc": "Share of the KV cache's blocks in use; 1 is all of them.",
    "vllm:gpu_cache_usage_perc": "The same as kv_cache_usage_perc, under its older name.",
    "vllm:cache_config_info": "Configuration of the KV cache, as labels.",
    "vllm:prompt_tokens_total": "Prompt tokens processed, cached ones included.",
    "vllm:generation_tokens_total": "Tokens generated.",
    "vllm:prefix_cache_queries_total": "Prompt tokens looked up in the prefix cache.",
    "vllm:prefix_cache_hits_total": "Prompt tokens found in the prefix cache.",
    "vllm:num_preemptions_total": "Sequences preempted for lack of KV cache blocks.",
    "vllm:request_success_total": "Finished answers by finish reason; abort: client disconnected.",
    "vllm:time_to_first_token_seconds": "Time from a request's arrival to its first token.",
    "vllm:inter_token_latency_seconds": "Time between two tokens of an answer.",
    "vllm:time_per_output_token_seconds": "The same as inter_token_latency_seconds, an older name.",
    "vllm:request_time_per_output_token_seconds": "Mean time between the tokens of an answer.",
    "vllm:e2e_request_latency_seconds": "Time from a request's arrival to its end.",
    "vllm:request_queue_time_seconds": "Time of a request in the queue.",
    "vllm:request_inference_time_seconds": "Time from an answer's first step to its last token.",
    "vllm:request_prefill_time_seconds": "Time from an answer's first step to its first token.",
    "vllm:request_decode_time_seconds": "Time from an answer's first token to its last.",
    "vllm:request_prompt_tokens": "Prompt tokens of an answer.",
    "vllm:request_generation_tokens": "Generated tokens of an answer.",
    "vllm:request_max_num_generation_tokens": "Tokens that an answer was planned to have.",
    "vllm:request_params_max_tokens": "The field max_tokens of requests that have it.",
    "vllm:request_params_n": "The field n of requests.",
    "vllm:iteration_tokens_total": "Tokens computed in a step of the engine.",
    "lab:request_late_seconds": "Longest delay of a request's tokens behind the timing model.",
    "lab:late_seconds_max": "Longest delay of any token behind the timing model.",
}


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
        """Yield the histogram's samples in Prometheus's text format."""
        running = 0
        bounds = [*map(str, self.bounds), "+Inf"]
        for bound, number in zip(bounds, self.counts, strict=True):
            running += number
            yield f'{name}_bucket{{{labels},le="{bound}"}} {running}'
        yield f"{name}_sum{{{labels}}} {self.total:.6f}"
        yield f"{name}_count{{{labels}}} {running}"


@dataclass(frozen=True, slots=True)
class Times:
    """The phases of one generation, in real seconds; None for one that it did not reach."""

    queued: float | None
    prefill: float | None
    decode: float | None


@dataclass(slots=True)
class Metrics:
    """What a backend has counted since it started; times in real seconds."""

    model: str
    prompt_tokens: int = 0
    generation_tokens: int = 0
    late: float = 0.0
    finished: Counter[str] = field(default_factory=Counter)
    histograms: Mapping[str, Histogram] = field(
        default_factory=lambda: {name: Histogram(bounds) for name, bounds in _HISTOGRAMS.items()}
    )

    def observe(self, name: str, value: float) -> None:
        """Count a value in one of vLLM's histograms, named without its "vllm:"."""
        self.histograms[f"vllm:{name}"].observe(value)

    def observe_step(self, step: Step) -> None:
        """Count the tokens of a step of the engine; a step that computed nothing is not counted."""
        if step.prefilled or step.decoded:
            self.observe("iteration_tokens_total", step.prefilled + step.decoded)

    def observe_between(self, seconds: float) -> None:
        """Count the time between two tokens of a generation, under both of its names."""
        self.observe("inter_token_latency_seconds", seconds)
        self.observe("time_per_output_token_seconds", seconds)

    def observe_late(self, seconds: float) -> None:
        """Count the longest delay of a request's tokens behind the model."""
        self.histograms["lab:request_late_seconds"].observe(seconds)
        self.late = max(self.late, seconds)

    def observe_times(self, times: Times, tokens: int) -> None:
        """Count the phases of a generation with this number of tokens."""
        if times.queued is not None:
            self.observe("request_queue_time_seconds", times.queued)
        if times.prefill is None:
            return
        self.observe("request_prefill_time_seconds", times.prefill)
        decode = times.decode or 0.0
        self.observe("request_decode_time_seconds", decode)
        self.observe("request_inference_time_seconds", times.prefill + decode)
        if tokens > 1:
            self.observe("request_time_per_output_token_seconds", decode / (tokens - 1))

    def text(self, engine: Engine) -> str:
        """Format all metrics, with the engine's current state."""
        labels = f'engine="0",model_name="{self.model}"'
        return "\n".join(self._lines(engine, labels)) + "\n"

    def _lines(self, engine: Engine, labels: str) -> Iterator[str]:
        gauges: dict[str, float] = {
            "vllm:num_requests_running": engine.running,
            "vllm:num_requests_waiting": engine.waiting,
            "vllm:kv_cache_usage_perc": round(engine.cache_usage, 6),
            "vllm:gpu_cache_usage_perc": round(engine.cache_usage, 6),
            "lab:late_seconds_max": round(self.late, 6),
        }
        for name, value in gauges.items():
            yield from _head(name, "gauge")
            yield f"{name}{{{labels}}} {value}"
        yield from _head("vllm:cache_config_info", "gauge")
        yield f"vllm:cache_config_info{{{_cache_config(engine)},{labels}}} 1"
        counters = {
            "prompt_tokens_total": self.prompt_tokens,
            "generation_tokens_total": self.generation_tokens,
            "prefix_cache_queries_total": engine.prompt_tokens,
            "prefix_cache_hits_total": engine.cached_tokens,
            "num_preemptions_total": engine.preemptions,
        }
        for name, value in counters.items():
            yield from _head(f"vllm:{name}", "counter")
            yield f"vllm:{name}{{{labels}}} {value}"
        yield from _head("vllm:request_success_total", "counter")
        for reason in ("stop", "length", "abort"):
            count = self.finished[reason]
            yield f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {count}'
        for name, histogram in self.histograms.items():
            yield from _head(name, "histogram")
            yield from histogram.lines(name, labels)


def _head(name: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {_HELP[name]}"
    yield f"# TYPE {name} {kind}"


def _cache_config(engine: Engine) -> str:
    config = {
        "block_size": BLOCK_TOKENS,
        "enable_prefix_caching": True,
        "num_gpu_blocks": engine.profile.kv_blocks,
    }
    return ",".join(f'{name}="{value}"' for name, value in config.items())
