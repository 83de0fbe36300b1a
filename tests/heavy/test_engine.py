"""A backend keeps the time that its model says."""

import statistics
from collections.abc import Mapping, Sequence

import pytest

from nginx_llm_lab.backends.llm.engine import Engine, Generation, Request
from nginx_llm_lab.backends.llm.profiles import PROFILES
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.stack import behaviour
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


def timed(lab, profile: str, slow: float = 1.0) -> None:
    """Give the backend another profile, so many times as slow."""
    asked = {"profile": profile, "time_scale": 1 / slow}
    behaviour.request(lab, "backend-1", "PUT", "/profile", asked)


def modelled(records: Sequence[Record], slow: float) -> list[list[float]]:
    """When each request's tokens are due, by the engine alone, for the very same arrivals."""
    engine = Engine(PROFILE)
    due: dict[Generation, list[float]] = {}
    for record in sorted(records, key=lambda record: record.sent or 0.0):
        request = Request(record.prompt_tokens or 0, record.max_tokens)
        due[engine.submit((record.sent or 0.0) / slow, request)] = []
    while engine.next_due() is not None:
        for token in engine.step().tokens():
            due[token.generation].append(token.at * slow)
    return list(due.values())


def token_ms(sent: Sequence[float], times: Sequence[Sequence[float]], place: int) -> float:
    """The median time to the token at a place: 0 is the first, -1 the last."""
    return statistics.median((t[place] - s) * 1e3 for s, t in zip(sent, times, strict=True))


def itl_ms(times: Sequence[Sequence[float]]) -> float:
    """The median over the answers of the mean time between tokens."""
    return statistics.median((t[-1] - t[0]) / (len(t) - 1) * 1e3 for t in times)


def figures(door: str, streams: int, seed: int, slow: float) -> dict[str, tuple[float, float]]:
    """Measured and modelled figures of so many streams at once."""
    scenario = Scenario(
        "agreement",
        seed=seed,
        requests=streams,
        arrivals="constant",
        rate=100.0 / slow,
        prompt=Lengths(tokens=256),
        output=Lengths(tokens=TOKENS),
    )
    records = sender.run(workload.plan(scenario), door, limit=60)
    assert [record.tokens for record in records] == [TOKENS] * streams
    measured, model = [record.token_times for record in records], modelled(records, slow)
    sent = [record.sent or 0.0 for record in records]
    return {
        "TTFT": (token_ms(sent, measured, 0), token_ms(sent, model, 0)),
        "E2E": (token_ms(sent, measured, -1), token_ms(sent, model, -1)),
        "ITL": (itl_ms(measured), itl_ms(model)),
    }


def path_ms(lab, streams: int, seed: int, slow: float) -> float:
    """What client, nginx and network add to a first token: an instant backend's median TTFT."""
    timed(lab, "instant")
    overhead = figures(lab.door, streams, seed, slow)["TTFT"][0]
    timed(lab, PROFILE.name, slow)
    return overhead


def agree(measured: Mapping[str, tuple[float, float]], overhead: float) -> bool:
    """Whether every figure is within 5 % and 2 ms of the model's, the way there set aside."""
    ttft, itl = measured["TTFT"], measured["ITL"]
    return all(
        abs(seen - by_model) <= 0.05 * by_model + 2
        for seen, by_model in ((ttft[0] - overhead, ttft[1]), itl)
    )


@pytest.mark.parametrize("streams", [1, 8, 64])
def test_a_backend_is_as_fast_as_its_model(one, streams):
    """First token and time between tokens at so many streams at once, in one of five tries.

    Whatever else a machine does can only delay an answer; it makes no wrong model right. What the
    machine adds on the way is measured just before, with a backend that needs no time. Where that
    is not enough, backend and arrivals are slowed down, so that the same delay matters less.
    """
    tries = []
    for turn, slow in enumerate((1.0, 2.0, 4.0, 8.0, 16.0)):
        # prompts of its own for every try: none is in the backend's prefix cache
        overhead = path_ms(one, streams, 1000 + 10 * streams + turn, slow)
        tries.append((overhead, figures(one.door, streams, 10 * streams + turn, slow)))
        if agree(tries[-1][1], overhead):
            break

    overhead, last = tries[-1]
    assert agree(last, overhead), tries
    early = [
        name
        for _, times in tries
        for name, (measured, model) in times.items()
        if name != "ITL" and measured < 0.95 * model  # a late first token makes gaps shorter
    ]
    assert not early, tries
