"""A real Prometheus, of Debian's package, scrapes the lab and answers the dashboard's queries."""

import json
import os

import pytest
import requests

from nginx_llm_lab.experiment import fleet
from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack import compose
from nginx_llm_lab.stack.compose import free_port
from nginx_llm_lab.stack.shell import poll, run

DASHBOARD = ROOT / "lab/stack/metrics/grafana/dashboards/vllm.json"


@pytest.fixture
def prometheus(lab, monkeypatch):
    """The address of a Prometheus beside the lab."""
    port = free_port()
    monkeypatch.setenv("LAB_PROMETHEUS_PORT", str(port))
    fleet.up_metrics(lab.lab)
    yield f"http://127.0.0.1:{port}"
    run(["docker", "rm", "--force", compose.container_id(lab.lab, "prometheus")])


def result(address, query):
    """What Prometheus answers to a query; an error of the query is one of the test."""
    answer = requests.get(f"{address}/api/v1/query", params={"query": query}, timeout=30)
    answer.raise_for_status()
    return answer.json()["data"]["result"]


def test_prometheus_scrapes_every_backend_and_answers(lab, prometheus, say):
    """It finds the targets by itself; a request that was answered is in its counters."""
    prompt = {"model": "lab-llm", "prompt": "Hello", "max_tokens": 20}
    for _ in range(30):
        requests.post(f"{lab.lab.door}/v1/completions", json=prompt, timeout=30).raise_for_status()

    counts = poll(
        lambda: result(prometheus, "sum(vllm:generation_tokens_total)"),
        lambda series: bool(series) and float(series[0]["value"][1]) >= 30,
        60,
    )
    up = poll(
        lambda: {one["metric"]["backend"]: one["value"][1] for one in result(prometheus, "up")},
        lambda series: len(series) == 3,
        60,
    )

    say(f" {counts[0]['value'][1]} generated tokens counted by Prometheus; up: {up}")
    assert up == {"backend-1": "1", "backend-2": "1", "backend-3": "1"}


def test_prometheus_knows_every_query_of_the_dashboard(lab, prometheus):
    """Each panel's query names metrics that the backends have, by backend."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    prompt = {"model": "lab-llm", "prompt": "Hello", "max_tokens": 20}
    requests.post(f"{lab.lab.door}/v1/completions", json=prompt, timeout=30).raise_for_status()

    unanswered = poll(
        lambda: [q for q in queries if not result(prometheus, q.replace("$__rate_interval", "1m"))],
        lambda empty: not empty,
        90,
    )

    assert unanswered == []


def test_prometheus_listens_on_loopback_without_root(lab, prometheus):
    """As everything of the lab does."""
    attributes = compose.container(lab.lab, "prometheus").attrs

    published = attributes["NetworkSettings"]["Ports"]["9090/tcp"]
    assert prometheus.endswith(published[0]["HostPort"])
    assert [binding["HostIp"] for binding in published] == ["127.0.0.1"]
    assert attributes["Config"]["User"] == "10003:10003"
    assert attributes["HostConfig"]["ReadonlyRootfs"]
    assert os.environ["LAB_PROMETHEUS_PORT"] in prometheus
