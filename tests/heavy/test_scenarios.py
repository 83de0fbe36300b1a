"""An LLM workload against a live fleet: three sides agree, also while things break and grow."""

import json

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.experiment import load
from nginx_llm_lab.experiment.fleet import up
from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack import nginx
from nginx_llm_lab.stack.shell import run
from nginx_llm_lab.traffic import scenario_choice

SMALL = """
about: Two kinds of machines, ten times faster than life.
seed: 4
requests: 120
arrivals: poisson
rate: 60
prompt: {dist: uniform, min: 16, max: 256}
output: {dist: lognormal, median: 24, sigma: 1.0, max: 256}
clients: 20
tenants: {n: 4, system_tokens: 128}
backends: 3
profile: h100-8b
fleet: {backend-3: l40s-8b}
time_scale: 10
targets: {ttft_ms: 200}
"""
# long enough for every event on a slow machine, which may take seconds for one
EVENTFUL = """
seed: 5
duration: 40
arrivals: constant
rate: 16
output: 12
backends: 3
profile: h100-8b
time_scale: 10
timeline:
  - {at: 0.5, do: fault, backend: backend-1, kind: drop, value: 3}
  - {at: 2, do: heal, backend: backend-1}
  - {at: 3, do: scale, backends: 2}
  - {at: 5, do: scale, backends: 4}
"""

BROKEN = """
seed: 6
duration: 40
arrivals: constant
rate: 12
output: 12
backends: 3
profile: h100-8b
time_scale: 10
timeline:
  - {at: 1, do: fault, backend: backend-2, kind: kill}
  - {at: 2, do: reload}
  - {at: 2.5, do: heal}
  - {at: 6, do: fault, backend: nginx, kind: kill}
  - {at: 6.5, do: heal}
"""


@pytest.fixture(scope="module")
def fleet(lab):
    """The tests' lab, whose fleet a scenario changes; afterwards it is as it was."""
    yield lab.lab
    up(lab.lab, 3)


def scenario(tmp_path, text):
    """A scenario of the user's own, by path."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return scenario_choice.load(str(file))


def test_client_nginx_and_backends_agree_on_every_request_and_token(fleet, tmp_path):
    """120 streams on a mixed fleet: no finding, and the same sums on all sides."""
    loaded = load.load(fleet, scenario(tmp_path, SMALL), load.choice_without_backends("least_conn"))

    told, kept = loaded.figures, {file.name for file in loaded.folder.iterdir()}
    lines = (loaded.folder / "client.jsonl").read_text().splitlines()
    clients = [json.loads(line) for line in lines]
    assert loaded.findings == ()
    assert loaded.holds
    assert loaded.method == "least_conn"
    assert told.overall.requests == len(clients) == 120
    assert told.overall.errors == {}
    assert sum(group.requests for group in told.backends) == 120
    assert sum(group.tokens or 0 for group in told.backends) == sum(c["tokens"] for c in clients)
    assert [group.name for group in told.backends] == ["backend-1", "backend-2", "backend-3"]
    assert {"access.jsonl", "backends.jsonl", "client.jsonl", "figures.json"} <= kept


def test_a_timeline_breaks_mends_shrinks_and_grows_the_fleet_under_load(fleet, tmp_path):
    """What the fault cut is truncated and explained; whoever comes later gets work; no loss."""
    loaded = load.load(
        fleet, scenario(tmp_path, EVENTFUL), load.choice_without_backends("round_robin")
    )

    figures = loaded.figures
    assert [(done.event.do, done.error) for done in loaded.timeline] == [
        ("fault", ""),
        ("heal", ""),
        ("scale", ""),
        ("scale", ""),
    ]
    assert figures.overall.requests == 640
    assert set(figures.overall.errors) == {"truncated"}
    assert loaded.holds, loaded.findings
    work = {group.name: group.requests for group in figures.backends}
    assert work["backend-3"] > 0  # removed after 3 s: what it answered is still known
    assert work["backend-4"] > 0


def test_every_request_of_a_timeline_with_kills_has_one_fate(fleet, tmp_path):
    """What failed did so by a kill, lines that it took are explained, a refused reload is told."""
    loaded = load.load(
        fleet, scenario(tmp_path, BROKEN), load.choice_without_backends("round_robin")
    )

    assert [done.event.do for done in loaded.timeline if done.error] == ["reload"]
    assert not loaded.holds  # the requests met another lab than the scenario describes
    assert loaded.ledger is not None
    assert loaded.ledger.holds, (str(loaded.ledger), loaded.findings)
    assert loaded.figures.unexplained == 0
    assert not loaded.incidents
    assert loaded.verdict.word != "FAIL", loaded.verdict
    assert len(loaded.ledger.fates) == loaded.figures.overall.requests == 480
    assert set(loaded.ledger.counts()) == {"stream"}
    failed = [fate.reason for fate in loaded.ledger.of("failed")]
    assert any("kill of nginx" in reason for reason in failed)
    assert {reason.rpartition("kill of ")[2] for reason in failed} <= {"nginx", "backend-2"}
    refused = {done.event.do: done.error for done in loaded.timeline if done.error}
    assert set(refused) == {"reload"}
    assert "host not found" in refused["reload"]


def test_a_bad_scenario_names_file_line_and_what_is_allowed(fleet, tmp_path):
    """Before anything is started or sent."""
    mark = nginx.log_size(fleet)

    with pytest.raises(UsageError) as caught:
        scenario(tmp_path, SMALL.replace("arrivals: poisson", "arrivals: poison"))

    assert "mine.yaml:5:11" in caught.value.message
    assert "poisson" in str(caught.value)
    assert nginx.log_size(fleet) == mark


def test_the_command_ends_with_2_for_a_bad_scenario(tmp_path):
    """And with two lines on stderr, no traceback."""
    file = tmp_path / "mine.yaml"
    file.write_text("rate: fast\nrequests: 1\n")

    done = run([str(ROOT / ".venv/bin/lab"), "load", str(file)], check=False)

    assert done.returncode == 2
    assert "mine.yaml:1:7" in done.stderr
    assert "Traceback" not in done.stderr
