"""A live backend beside published figures of real servers; docs/engine.md names their sources.

The backend runs at half the speed of life: what the machine adds is then a smaller part of what
the model says. Every figure is given at the speed of life.
"""

import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from nginx_llm_lab.backends.llm.engine import Engine, Generation, Request
from nginx_llm_lab.backends.llm.profiles import PROFILES
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.pytest_plugin import LiveLab
from nginx_llm_lab.stack import behaviour, compose
from nginx_llm_lab.traffic import sender, workload
from nginx_llm_lab.traffic.scenario import Lengths, Scenario

pytestmark = pytest.mark.skipif(
    not os.environ.get("LAB_CALIBRATE"),
    reason="published figures can only be met on a quiet machine: LAB_CALIBRATE=1 runs this",
)

SCALE = 0.5
TOLERANCE = 0.2
# NVIDIA, "NIM for LLMs benchmarking: Performance", Llama-3.1-8B-Instruct, version 1.8.0. Users:
# output tokens/s, mean time to first token (ms), mean time between tokens (ms). Its three figures
# for one user fit together for 200 tokens of output.
NIM_8B = {1: (214.56, 10.26, 4.63), 250: (12_964.72, 605.6, 16.14)}
PREFILL_8B = 27_700  # prompt tokens/s of an 8B model on an H100, saturated: see docs/engine.md


@pytest.fixture
def backend(lab: LiveLab) -> Iterator[LiveLab]:
    """A lab whose only backend in use is backend-1, with an empty cache."""
    lab.use("round_robin", server_params=["backend-2: down", "backend-3: down"])
    behaviour.request(lab.lab, "backend-1", "DELETE", "/cache")
    yield lab
    behaviour.request(
        lab.lab, "backend-1", "PUT", "/profile", {"profile": "instant", "time_scale": 1}
    )


def become(lab: LiveLab, profile: str, scale: float = SCALE) -> None:
    """Give backend-1 a profile."""
    asked = {"profile": profile, "time_scale": scale}
    behaviour.request(lab.lab, "backend-1", "PUT", "/profile", asked)


def send(
    lab: LiveLab, seed: int, prompt: int, output: int | Lengths, **fields: object
) -> list[Record]:
    """Send requests of equal length, or with answers of several; each has a prompt of its own."""
    answers = Lengths(tokens=output) if isinstance(output, int) else output
    lengths = {"prompt": Lengths(tokens=prompt), "output": answers}
    scenario = Scenario("calibration", seed=seed, clients=1, **lengths, **fields)  # type: ignore[arg-type] # fields of a Scenario
    records = sender.run(workload.plan(scenario), lab.lab.door, limit=300)
    assert [record.error for record in records] == [""] * len(records)
    return list(records)


def figures(records: Sequence[Record]) -> tuple[float, float, float]:
    """Output tokens/s, mean time to first token (ms), mean time between tokens (ms)."""
    sent = min(record.sent or 0.0 for record in records)
    end = max(record.token_times[-1] for record in records)
    tokens = sum(record.tokens or 0 for record in records)
    firsts = [record.token_times[0] - (record.sent or 0.0) for record in records]
    between = [mean_gap(record.token_times) for record in records if len(record.token_times) > 1]
    return (
        tokens / (end - sent) / SCALE,
        statistics.mean(firsts) * 1e3 * SCALE,
        statistics.mean(between) * 1e3 * SCALE if between else 0.0,
    )


@pytest.mark.parametrize("users", NIM_8B)
def test_users_get_what_they_get_of_an_8b_model_on_an_h100(backend, say, users):
    """From one user to 250, each with the next request as soon as the last is answered."""
    become(backend, "h100-8b")

    seen = figures(
        send(backend, users, 200, 200, arrivals="closed", users=users, requests=4 * users)
    )

    say(f"{users} users: {seen[0]:,.0f} tok/s, TTFT {seen[1]:.1f} ms, ITL {seen[2]:.2f} ms")
    assert seen == pytest.approx(NIM_8B[users], rel=TOLERANCE)


def test_prompts_that_come_together_share_one_prefill(backend, say):
    """Sixteen prompts of 8,000 tokens: as many a second as a saturated server computes."""
    become(backend, "h100-8b")

    records = send(backend, 3, 8000, 1, arrivals="bursts", burst=16, rate=16.0, requests=16)

    sent = min(record.sent or 0.0 for record in records)
    end = max(record.end or 0.0 for record in records)
    speed = sum(record.prompt_tokens or 0 for record in records) / (end - sent) / SCALE
    say(f"prefill: {speed:,.0f} prompt tokens/s")
    assert speed == pytest.approx(PREFILL_8B, rel=TOLERANCE)


def test_a_decode_waits_for_the_prompts_beside_it(backend, say):
    """Four prompts of 16,000 tokens: each step of an answer under way takes hundreds of ms."""
    become(backend, "h100-8b")
    prompts = workload.users(_alone("prompts", 4, 16_000, 1))
    users = [
        *workload.users(_alone("answer", 1, 32, 1500)),
        *(replace(user, due=user.due + 1.0) for user in prompts),
    ]

    records = sender.run(workload.Plan(iter(users), None, len(users)), backend.lab.door, limit=120)

    answer = next(record for record in records if record.max_tokens > 1)
    gaps = sorted((b - a) * 1e3 * SCALE for a, b in pairwise(answer.token_times))
    slow = [gap for gap in gaps if gap > 100]
    say(f"between tokens: median {statistics.median(gaps):.1f} ms, {len(slow)} over 100 ms: {slow}")
    assert len(slow) >= 4
    assert statistics.median(gaps) == pytest.approx(4.63, rel=TOLERANCE)


def _alone(name: str, requests: int, prompt: int, output: int) -> Scenario:
    return Scenario(
        name,
        seed=7 + requests,
        arrivals="bursts",
        burst=requests,
        rate=1.0,
        requests=requests,
        prompt=Lengths(tokens=prompt),
        output=Lengths(tokens=output),
    )


def test_a_backend_keeps_its_model_with_128_users(backend, say):
    """At the speed of life: mean TTFT and ITL within 5 % of the model for the same arrivals.

    Answers of one length would end together, so that all users came back within a few ms, and one
    ms would decide which step of 300 ms a prompt is computed in.
    """
    become(backend, "h100-8b", 1.0)
    began = time.time()

    output = Lengths(dist="uniform", min=100, max=300)
    records = send(backend, 11, 200, output, arrivals="closed", users=128, requests=768)

    entries = journal(backend, began, records)
    model = modelled(entries)
    by_id = {record.id: record.token_times for record in records}
    seen = [entry["ttft"] for entry in entries], [mean_gap(by_id[entry["id"]]) for entry in entries]
    due = [first - entry["start"] for entry, (first, *_) in zip(entries, model, strict=True)]
    by_model = due, [mean_gap(times) for times in model]
    (ttft, itl), (model_ttft, model_itl) = (
        [statistics.mean(v) * 1e3 for v in s] for s in (seen, by_model)
    )
    say(
        f"128 users: TTFT {ttft:.1f} ms (model {model_ttft:.1f}), "
        f"ITL {itl:.2f} ms (model {model_itl:.2f})"
    )
    assert (ttft, itl) == pytest.approx((model_ttft, model_itl), rel=0.05)


def journal(lab: LiveLab, began: float, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The journal's entries for these records, in the order of their arrival."""
    ids = {record.id for record in records}
    lines = compose.journals(lab.lab, began, len(records)).splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["id"] in ids]
    return sorted(entries, key=lambda entry: entry["start"])


def modelled(entries: Sequence[dict[str, Any]]) -> list[list[float]]:
    """When each answer's tokens are due, by the engine alone, for these arrivals at a backend."""
    engine = Engine(PROFILES["h100-8b"])
    due: dict[Generation, list[float]] = {}
    for entry in entries:
        request = Request(entry["prompt_tokens"], entry["completion_tokens"])
        due[engine.submit(entry["start"], request)] = []
    while engine.next_due() is not None:
        for token in engine.step().tokens():
            due[token.generation].append(token.at)
    return list(due.values())


def mean_gap(times: Sequence[float]) -> float:
    """The mean time between tokens."""
    return (times[-1] - times[0]) / (len(times) - 1)


def test_a_full_cache_makes_requests_wait(backend, say):
    """24 prompts of 8,000 tokens on a cache of 65,536: eight at most run, the others queue."""
    become(backend, "slow-8b", 20.0)

    began = time.time()

    records = send(backend, 5, 8000, 8, arrivals="bursts", burst=24, rate=24.0, requests=24)

    queued = sorted(entry["queued"] for entry in journal(backend, began, records))
    say(f"queued: {queued[0]:.2f} to {queued[-1]:.2f} s")
    assert len(queued) == 24
    # eight are admitted at once, in steps that all end after the first prompt's 0.15 s
    assert sum(seconds > 1.0 for seconds in queued) >= 16
