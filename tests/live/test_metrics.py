"""The backends' metrics at the lab door, as a Prometheus finds and reads them."""

import re

import pytest
import requests

from nginx_llm_lab.stack import compose, nginx

SAMPLE = re.compile(r'[a-z]+:[a-z0-9_]+\{backend="(backend-\d)",[^}]+\} [0-9.e+-]+')


def get(lab, path):
    """The answer of the lab door."""
    return requests.get(f"{lab.lab.door}{path}", timeout=30)


def test_the_targets_are_the_backends_that_run(lab):
    """In the form that Prometheus's http_sd_configs read; each path answers with metrics."""
    targets = get(lab, "/metrics/targets").json()

    labels = [target["labels"] for target in targets]
    assert [label["backend"] for label in labels] == ["backend-1", "backend-2", "backend-3"]
    for label in labels:
        assert "vllm:num_requests_running{" in get(lab, label["__metrics_path__"]).text


def test_metrics_are_each_backends_own(lab):
    """A request that backend-2 answers is counted there, and in nobody's journal by the scrape."""
    lab.use("round_robin", server_params=["backend-1: down", "backend-3: down"])
    counter = "vllm:request_success_total{engine"
    before = {name: finished(lab, name) for name in ("backend-1", "backend-2")}

    prompt = {"model": "lab-llm", "prompt": "Hello", "max_tokens": 2}
    requests.post(f"{lab.lab.door}/v1/completions", json=prompt, timeout=30).raise_for_status()

    assert counter in get(lab, "/metrics/backend-2").text
    assert finished(lab, "backend-1") == before["backend-1"]
    assert finished(lab, "backend-2") == before["backend-2"] + 1


def finished(lab, backend):
    """How many requests a backend says that it finished."""
    text = get(lab, f"/metrics/{backend}").text
    return sum(
        int(count) for count in re.findall(r"^vllm:request_success.* (\d+)$", text, re.MULTILINE)
    )


def test_all_metrics_are_one_exposition(lab):
    """Each family once, each sample with its backend."""
    if not nginx.has_njs(lab.lab):
        pytest.skip("joining the metrics of all backends needs njs")

    answer = get(lab, "/metrics")

    lines = answer.text.splitlines()
    types = [line for line in lines if line.startswith("#")]
    samples = [SAMPLE.fullmatch(line) for line in lines if not line.startswith("#")]
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert len(types) == len(set(types)) > 10
    assert {sample[1] for sample in samples if sample} == {"backend-1", "backend-2", "backend-3"}
    assert all(samples)


def test_a_scrape_is_no_request_of_the_lab(lab):
    """Neither nginx's log nor a backend's journal has a line of it."""
    mark = nginx.log_size(lab.lab)
    journalled = len(journal(lab))

    get(lab, "/metrics/backend-1")

    assert nginx.log_since(lab.lab, mark) == b""
    assert len(journal(lab)) == journalled


def journal(lab):
    """The lines of backend-1's journal about /metrics."""
    lines = compose.journals(lab.lab, 0.0, 0).splitlines()
    return [line for line in lines if b'"path":"/metrics"' in line]


@pytest.mark.parametrize("path", ["/metrics/backend-99", "/metrics/nginx", "/metrics/backend-1/x"])
def test_nothing_but_a_backends_metrics_can_be_reached(lab, path):
    """No other host and no other path: what is no backend's goes to the upstream as usual."""
    answer = get(lab, path)

    assert "vllm:" not in answer.text
