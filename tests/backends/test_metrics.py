"""Prometheus text."""

import re
from itertools import pairwise

from nginx_llm_lab.backends.llm.engine import Engine, Request
from nginx_llm_lab.backends.llm.metrics import Histogram, Metrics
from nginx_llm_lab.backends.llm.profiles import PROFILES


def test_a_histogram_counts_up_to_and_with_each_bound():
    """Buckets add up, as Prometheus wants them."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)

    assert list(histogram.lines("h", 'm="x"')) == [
        'h_bucket{m="x",le="1.0"} 2',
        'h_bucket{m="x",le="2.0"} 3',
        'h_bucket{m="x",le="+Inf"} 4',
        'h_sum{m="x"} 12.000000',
        'h_count{m="x"} 4',
    ]


def test_the_engines_state_is_exported_under_vllms_names():
    """Running, waiting, cache."""
    engine = Engine(PROFILES["cpu-small"])
    for _ in range(6):
        engine.submit(0.0, Request(128, 1))
    engine.step()

    lines = Metrics("lab-llm").text(engine).splitlines()

    assert 'vllm:num_requests_running{engine="0",model_name="lab-llm"} 4' in lines
    assert 'vllm:num_requests_waiting{engine="0",model_name="lab-llm"} 2' in lines
    assert 'vllm:gpu_cache_usage_perc{engine="0",model_name="lab-llm"} 0.0625' in lines
    assert 'vllm:prefix_cache_queries_total{engine="0",model_name="lab-llm"} 512' in lines


def test_every_series_of_vllms_dashboards_is_there():
    """They exist even before the first request."""
    text = Metrics("lab-llm").text(Engine(PROFILES["h100-8b"]))
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}

    assert names >= {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:num_preemptions_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:request_success_total",
        "vllm:cache_config_info",
        "vllm:iteration_tokens_total",
        "vllm:time_to_first_token_seconds",
        "vllm:inter_token_latency_seconds",
        "vllm:e2e_request_latency_seconds",
        "vllm:request_queue_time_seconds",
        "vllm:request_inference_time_seconds",
        "vllm:request_prefill_time_seconds",
        "vllm:request_decode_time_seconds",
        "vllm:request_prompt_tokens",
        "vllm:request_generation_tokens",
        "vllm:request_max_num_generation_tokens",
        "vllm:request_params_n",
        "vllm:request_params_max_tokens",
    }


def test_every_family_has_help_and_type():
    """Its HELP and its TYPE, once each and before its samples."""
    lines = Metrics("lab-llm").text(Engine(PROFILES["h100-8b"])).splitlines()

    family, heads = "", []
    for first, second in pairwise(lines):
        if first.startswith("# HELP "):
            family = first.split()[2]
            heads.append(family)
            assert second.startswith(f"# TYPE {family} ")
        elif not first.startswith("#"):
            assert re.fullmatch(rf"{family}(_bucket|_sum|_count)?\{{.+\}} [0-9.]+", first)
    assert len(heads) == len(set(heads)) == sum(line.startswith("# TYPE ") for line in lines)


def test_the_cache_config_names_its_blocks():
    """What a dashboard multiplies the usage by."""
    text = Metrics("lab-llm").text(Engine(PROFILES["cpu-small"]))

    assert 'block_size="16"' in text
    assert 'num_gpu_blocks="512"' in text


def test_a_step_counts_the_tokens_that_it_computed():
    """A prompt of 128 tokens, and the step that only began it, which counts nothing."""
    metrics = Metrics("lab-llm")
    engine = Engine(PROFILES["cpu-small"])
    engine.submit(0.0, Request(128, 1))
    for _ in range(2):
        metrics.observe_step(engine.step())

    assert 'vllm:iteration_tokens_total_sum{engine="0",model_name="lab-llm"} 128' in metrics.text(
        engine
    )
