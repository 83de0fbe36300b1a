"""`lab load` with faults from outside and with requests that a limit refuses."""

import os
import subprocess
import sys

import pytest

from nginx_llm_lab.backends.llm.profiles import Limits
from nginx_llm_lab.experiment import fleet, load
from nginx_llm_lab.stack import compose, faults, nginx
from nginx_llm_lab.stack.shell import poll, run
from nginx_llm_lab.traffic.scenario import Lengths, Machine, Scenario

STEADY = """
requests: 400
arrivals: constant
rate: 40
prompt: {dist: fixed, tokens: 64}
output: {dist: fixed, tokens: 40}
backends: 5
"""


@pytest.fixture
def restored(five):
    """The five backends; afterwards all of them run, and are as they were."""
    yield five.lab
    faults.heal(five.lab)
    fleet.up(five.lab, 5, "instant", 1.0)


RELOAD = ("nginx", "-c", f"{nginx.FOLDER}/nginx.conf", "-s", "reload")


@pytest.mark.parametrize(
    ("service", "commands", "incident"),
    [
        ("backend-2", [("kill",)], "backend-2 exited"),
        ("backend-2", [("pause",), ("unpause",)], "backend-2 was paused"),
        ("nginx", [("exec", *RELOAD)], "nginx has new workers"),
    ],
)
def test_what_comes_from_outside_fails_the_load_and_is_named(
    restored, tmp_path, say, service, commands, incident
):
    """Nothing in the scenario does it: exit code 1, with the service and what became of it."""
    scenario = tmp_path / "steady.yaml"
    scenario.write_text(STEADY)
    where = {
        "LAB_PROJECT": restored.project,
        "LAB_PORT": str(restored.port),
        "LAB_DOOR_PORT": str(restored.door_port),
    }
    mark = nginx.log_size(restored)

    words = [sys.executable, "-m", "nginx_llm_lab.cli", "load", str(scenario)]
    with subprocess.Popen(words, env={**os.environ, **where}, stdout=subprocess.PIPE) as command:
        poll(lambda: nginx.log_size(restored), lambda size: size > mark, 120)
        for verb, *more in commands:
            run(["docker", verb, compose.container_id(restored, service), *more])
        printed = command.communicate(timeout=240)[0].decode()

    named = [line for line in printed.splitlines() if incident in line]
    say(f" exit code {command.returncode}: {named}")
    assert command.returncode == 1, printed
    assert named, printed
    assert "no event of the scenario" in named[0]


def test_a_full_queue_is_refused_by_the_limit_of_its_backend(restored, say):
    """The run holds: each refusal is named, and no fault is needed to explain it."""
    fleet.up(restored, 5, "h100-8b", 1.0)
    small = Machine("h100-8b", limits=Limits(max_num_seqs=1, queue_limit=1))
    scenario = Scenario(
        "small-queue",
        requests=200,
        rate=100.0,
        prompt=Lengths(tokens=64),
        output=Lengths(tokens=200),
        backends=5,
        fleet={"backend-3": small},
    )

    loaded = load.load(restored, scenario, load.choice_without_backends("round_robin"))

    reasons = loaded.ledger.reasons()
    say(f" {reasons}")
    assert list(reasons) == ["stream refused by a limit: queue limit of backend-3"]
    assert loaded.holds, loaded.ledger.problems()


def test_nginxs_limit_on_large_bodies_is_named(restored, say):
    """Of 160 prompts of over 100 kB at once nginx holds 128; the others get its own 503."""
    scenario = Scenario(
        "large-bodies",
        requests=160,
        arrivals="constant",
        rate=1000.0,
        prompt=Lengths(tokens=28_000),
        output=Lengths(tokens=4),
        backends=5,
    )

    loaded = load.load(restored, scenario, load.choice_without_backends("round_robin"))

    reasons = loaded.ledger.reasons()
    say(f" {reasons}")
    assert list(reasons) == ["stream refused by a limit: nginx's limit on large request bodies"]
    assert loaded.holds, loaded.ledger.problems()
