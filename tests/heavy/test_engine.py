"""A backend keeps the time that its model says."""

import statistics
from collections.abc import Mapping, Sequence

import pytest

from nginx_llm_lab.backends.llm.engine import Engine, Generation, Request
from nginx_llm_lab.backends.llm.profiles import PROFILES
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.stack import faults
from nginx_llm_lab.traffic import sender, workload
from nginx_llm_lab.traffic.scenario import Lengths, Scenario

PROFILE = PROFILES["h100-8b"]
TOKENS = 64


@pytest.fixture(scope="module")
def one(lab):
    """The lab with one backend behind nginx; afterwards that backend is instant again."""
    lab.use("round_robin", server_params=["backend-2: down", "backend-3: down"])
    yield lab.lab
    timed(lab.lab, "instant")


def timed(lab, profile: str) -> None:
    """Give the backend another profile."""
    faults.tell(lab, "backend-1", "PUT", "/profile", {"profile": profile})


def modelled(records: Sequence[Record]) -> list[list[float]]:
    """When each request's tokens are due, by the engine alone, for the very same arrivals."""
    engine = Engine(PROFILE)
    due: dict[Generation, list[float]] = {}
    for record in sorted(records, key=lambda record: record.sent or 0.0):
        request = Request(record.prompt_tokens or 0, record.max_tokens)
        due[engine.submit(record.sent or 0.0, request)] = []
    while engine.next_due() is not None:
        for token in engine.step().tokens():
            due[token.generation].append(token.at)
    return list(due.values())


def ttft_ms(sent: Sequence[float], times: Sequence[Sequence[float]]) -> float:
    """The median time to the first token."""
    return statistics.median((t[0] - s) * 1e3 for s, t in zip(sent, times, strict=True))


def itl_ms(times: Sequence[Sequence[float]]) -> float:
    """The median over the answers of the mean time between tokens."""
    return statistics.median((t[-1] - t[0]) / (len(t) - 1) * 1e3 for t in times)


def figures(door: str, streams: int, seed: int) -> dict[str, tuple[float, float]]:
    """Measured and modelled figures of so many streams at once."""
    scenario = Scenario(
        "agreement",
        seed=seed,
        requests=streams,
        arrivals="constant",
        rate=100.0,
        prompt=Lengths(tokens=256),
        output=Lengths(tokens=TOKENS),
    )
    records = sender.run(workload.plan(scenario), door, limit=60)
    assert [record.tokens for record in records] == [TOKENS] * streams
    measured, model = [record.token_times for record in records], modelled(records)
    sent = [record.sent or 0.0 for record in records]
    return {
        "TTFT": (ttft_ms(sent, measured), ttft_ms(sent, model)),
        "ITL": (itl_ms(measured), itl_ms(model)),
    }


def path_ms(lab, streams: int, seed: int) -> float:
    """What client, nginx and network add to a first token: an instant backend's median TTFT."""
    timed(lab, "instant")
    overhead = figures(lab.door, streams, seed)["TTFT"][0]
    timed(lab, PROFILE.name)
    return overhead


def agree(found: Mapping[str, tuple[float, float]], overhead: float) -> bool:
    """Whether every figure is within 5 % and 2 ms of the model's, the way there set aside."""
    ttft, itl = found["TTFT"], found["ITL"]
    return all(
        abs(seen - said) <= 0.05 * said + 2 for seen, said in ((ttft[0] - overhead, ttft[1]), itl)
    )


@pytest.mark.parametrize("streams", [1, 8, 64])
def test_a_backend_is_as_fast_as_its_model(one, streams):
    """First token and time between tokens at so many streams at once, in one of five tries.

    Whatever else a machine does can only delay an answer; it makes no wrong model right. What the
    machine adds on the way is measured just before, with a backend that needs no time.
    """
    tries = []
    for turn in range(5):
        # prompts of its own for every try: none is in the backend's prefix cache
        overhead = path_ms(one, streams, seed=1000 + 10 * streams + turn)
        tries.append((overhead, figures(one.door, streams, seed=10 * streams + turn)))
        if agree(tries[-1][1], overhead):
            break

    overhead, found = tries[-1]
    assert agree(found, overhead), tries
    assert all(seen >= 0.95 * said for _, each in tries for seen, said in each.values()), tries
