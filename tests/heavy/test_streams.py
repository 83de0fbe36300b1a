"""Streams that last, and streams by the thousand."""

import json
import os
import re
import statistics
import time
from collections.abc import Iterator

import pytest
import requests

from lab import compose, faults, generator, join, nginx, workload
from lab.pytest_plugin import free_port
from lab.scenario import Lengths, Scenario
from lab.shell import run

CHAT = "/v1/chat/completions"
MEMORY_LIMIT = 150  # MiB of a backend with 1,000 open streams


def events(answer: requests.Response) -> list[bytes]:
    """The payloads of a stream, in order."""
    lines = (line for line in answer.iter_lines() if line.startswith(b"data: "))
    return [line.removeprefix(b"data: ") for line in lines]


@pytest.mark.parametrize(
    ("tokens", "scale"),
    [
        pytest.param(1100, 1.0, id="a token every 60 ms"),
        pytest.param(1, 0.0019, id="silent until its only token"),
    ],
)
def test_a_generation_longer_than_a_minute_survives(five, tokens, scale):
    """66 seconds of tokens, or of silence before the first: nothing between gives up."""
    five.use("round_robin", server_params=["backend-2: down", "backend-3: down"])
    for name in ("backend-1", "backend-4", "backend-5"):
        asked = {"profile": "slow-8b", "time_scale": scale}
        faults.tell(five.lab, name, "PUT", "/profile", asked)
    body = {
        "model": "lab-llm",
        "messages": [{"role": "user", "content": "Take your time."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }
    began = time.monotonic()

    try:
        with requests.post(
            f"{five.lab.front}{CHAT}", json=body, stream=True, timeout=120
        ) as answer:
            found = events(answer)
    finally:
        for name in ("backend-1", "backend-4", "backend-5"):
            well = {"profile": "instant", "time_scale": 1}
            faults.tell(five.lab, name, "PUT", "/profile", well)

    assert time.monotonic() - began > 60
    assert found[-1] == b"[DONE]"
    deltas = [choice["delta"] for event in found[:-1] for choice in json.loads(event)["choices"]]
    assert sum(bool(delta.get("content")) for delta in deltas) == tokens
