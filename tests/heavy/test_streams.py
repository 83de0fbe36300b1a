"""Streams that last, and streams by the thousand."""

import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from nginx_llm_lab.accounts import join
from nginx_llm_lab.evidence import journal as journals
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.stack import behaviour, compose, shell
from nginx_llm_lab.stack.compose import Lab, free_port
from nginx_llm_lab.stack.shell import run
from nginx_llm_lab.traffic import sender, workload
from nginx_llm_lab.traffic.scenario import Lengths, Scenario

THOUSAND = 1000
TOKENS = 30
MEMORY_LIMIT = 160  # MiB


def stream(lab: Lab, prompt_words: int, tokens: int) -> tuple[float, int, bytes]:
    """Ask for a stream: its seconds, its tokens, and how it ended."""
    body = {
        "model": "lab-llm",
        "messages": [{"role": "user", "content": "word " * prompt_words}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    url = f"{lab.front}/v1/chat/completions"
    began = time.monotonic()
    with requests.post(url, json=body, stream=True, timeout=120) as answer:
        lines = [line[6:] for line in answer.iter_lines() if line.startswith(b"data: ")]
    deltas = [choice["delta"] for line in lines[:-1] for choice in json.loads(line)["choices"]]
    came = sum(bool(delta.get("content")) for delta in deltas)
    return time.monotonic() - began, came, lines[-1]


def test_a_generation_longer_than_a_minute_survives(five, say):
    """More than 60 s of tokens, and of silence before the only one: nothing between gives up."""
    five.use("round_robin", server_params=[f"backend-{n}: down" for n in (2, 3, 4, 5)])
    quarter_speed = {"profile": "slow-8b", "time_scale": 0.25}
    behaviour.request(five.lab, "backend-1", "PUT", "/profile", quarter_speed)

    try:
        with ThreadPoolExecutor(2) as pool:
            silent = pool.submit(stream, five.lab, 28_000, 1)
            talking = pool.submit(stream, five.lab, 10, 150)
        streams = [silent.result(), talking.result()]
    finally:
        well = {"profile": "instant", "time_scale": 1}
        behaviour.request(five.lab, "backend-1", "PUT", "/profile", well)

    say(f" a silent and a talking stream survived {streams[0][0]:.1f} s and {streams[1][0]:.1f} s")
    assert [(tokens, end) for _, tokens, end in streams] == [(1, b"[DONE]"), (150, b"[DONE]")]
    assert min(seconds for seconds, _, _ in streams) > 60


@pytest.fixture
def alone(five):
    """A backend by itself that runs a thousand sequences at once: its container and address."""
    image = compose.container(five.lab, "backend-1").attrs["Config"]["Image"]
    environment = {"BACKEND_NAME": "backend-1", "PROFILE": "slow-8b", "MAX_NUM_SEQS": str(THOUSAND)}
    port, name = free_port(), f"lab-heavy-{os.getpid()}-alone"
    options = ["--read-only", "--cap-drop", "ALL", "--memory", "512m", "--pids-limit", "64"]
    settings = [word for key, value in environment.items() for word in ("-e", f"{key}={value}")]
    publish = ["-p", f"127.0.0.1:{port}:8000"]
    run(["docker", "run", "-d", "--name", name, *options, *settings, *publish, str(image)])
    try:
        url = f"http://127.0.0.1:{port}"
        shell.wait_for(lambda: answers(f"{url}/health"), 30, "the backend's health")
        yield name, url
    finally:
        run(["docker", "rm", "-f", name])


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def peak_mib(container: str) -> float:
    """The most memory that the first process of a container ever had resident."""
    status = run(["docker", "exec", container, "cat", "/proc/1/status"]).stdout
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert match
    return int(match[1]) / 1024


def most_open(records: list[Record]) -> int:
    """How many requests were open at once, at most."""
    moments = [(record.sent or 0.0, 1) for record in records]
    moments += [(record.end or 0.0, -1) for record in records]
    held = most = 0
    for _, change in sorted(moments):
        held += change
        most = max(most, held)
    return most


def test_a_backend_under_a_thousand_streams_stays_correct(alone, say):
    """Each gets all of its tokens, the journal says so too, and the memory is bounded."""
    name, url = alone
    idle = peak_mib(name)
    scenario = Scenario(
        "thousand",
        requests=THOUSAND,
        arrivals="constant",
        rate=200.0,
        prompt=Lengths(tokens=64),
        output=Lengths(tokens=TOKENS),
    )

    records = sender.run(workload.plan(scenario), url, limit=120)

    peak, most = peak_mib(name), most_open(records)
    journal = run(["docker", "logs", name]).stdout.encode().splitlines()
    joined = join.join(records, None, journals.read(journal).entries)
    say(f" {most:,} streams at once: {peak:.0f} MiB at most, {idle:.0f} MiB idle")
    assert most == THOUSAND
    assert {record.error for record in records} == {""}
    assert [record.tokens for record in records] == [TOKENS] * THOUSAND
    assert joined.findings == ()
    assert peak < MEMORY_LIMIT
