"""Prometheus text."""

from nginx_llm_lab.backends.llm.engine import Engine, Request
from nginx_llm_lab.backends.llm.metrics import Histogram, Metrics
from nginx_llm_lab.backends.llm.profiles import PROFILES


def test_a_histogram_counts_up_to_and_with_each_bound():
    """Buckets add up, as Prometheus wants them."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)

    assert list(histogram.lines("h", 'm="x"')) == [
        "# TYPE h histogram",
        'h_bucket{m="x",le="1.0"} 2',
        'h_bucket{m="x",le="2.0"} 3',
        'h_bucket{m="x",le="+Inf"} 4',
        'h_sum{m="x"} 12.000000',
        'h_count{m="x"} 4',
    ]


def test_the_engines_present_state_is_told_in_vllms_names():
    """Running, waiting, cache."""
    engine = Engine(PROFILES["cpu-small"])
    for _ in range(6):
        engine.submit(0.0, Request(128, 1))
    engine.step()

    lines = Metrics("lab-llm").text(engine).splitlines()

    assert 'vllm:num_requests_running{model_name="lab-llm"} 4' in lines
    assert 'vllm:num_requests_waiting{model_name="lab-llm"} 2' in lines
    assert 'vllm:gpu_cache_usage_perc{model_name="lab-llm"} 0.0625' in lines
    assert 'vllm:prefix_cache_queries_total{model_name="lab-llm"} 512' in lines
