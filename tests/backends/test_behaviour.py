"""Faults on demand."""

import threading
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import requests

from nginx_llm_lab.backends.llm.behaviour import HEALTHY, Behaviour, Switch, parse
from nginx_llm_lab.backends.llm.wire import RefusedError
from tests.backends.serving import Running, http

CALL = {
    "model": "lab-llm",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 10,
    "ignore_eos": True,
}


def behave(lab: Running, **behaviour: Any) -> None:
    """Set a behaviour."""
    assert http.put(lab.panel + "/behaviour", json=behaviour).ok


def stream(lab: Running) -> requests.Response:
    """A stream of ten tokens, not yet read."""
    return http.post(lab.url + "/v1/chat/completions", json={**CALL, "stream": True}, stream=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, HEALTHY),
        ({"error_rate": 1, "error_status": 503}, Behaviour(error_rate=1.0, error_status=503)),
        ({"drop_after_tokens": 5}, Behaviour(drop_rate=1.0, drop_after_tokens=5)),
        ({"drop_after_tokens": 5, "drop_rate": 0.5}, Behaviour(drop_rate=0.5, drop_after_tokens=5)),
        ({"slow": 3}, Behaviour(slow=3.0)),
    ],
)
def test_missing_fields_mean_no_fault(content: object, expected: Behaviour):
    """`drop_after_tokens` alone drops every response."""
    assert parse(content) == expected


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "a behaviour must be a JSON object"),
        ({"sleep": 1}, 'unknown behaviour "sleep": one of error_rate, error_status, '),
        ({"error_rate": 1.5}, '"error_rate" must be a number from 0 to 1'),
        ({"error_rate": True}, '"error_rate" must be a number from 0 to 1'),
        ({"error_status": 200}, '"error_status" must be a whole number from 400 to 599'),
        ({"error_status": 500.5}, '"error_status" must be a whole number from 400 to 599'),
        ({"hang": 1}, '"hang" must be true or false'),
        ({"slow": 0.5}, '"slow" must be a number from 1 to 1000'),
        ({"slow": None}, '"slow" must be a number from 1 to 1000'),
    ],
)
def test_a_wrong_behaviour_is_refused_with_what_is_allowed(content: object, told: str):
    """Nothing is guessed."""
    with pytest.raises(RefusedError) as caught:
        parse(content)

    assert caught.value.message.startswith(told)


def test_a_seed_decides_which_requests_are_hit():
    """The same seed affects the same requests; their share is about `error_rate`."""
    hits = []
    for _ in range(2):
        switch = Switch()
        switch.set(Behaviour(error_rate=0.2, seed=3))
        hits.append([switch.hits(0.2) for _ in range(1000)])

    assert hits[0] == hits[1]
    assert 150 < sum(hits[0]) < 250


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
def test_errors_come_in_the_apis_own_shape(lab: Running, path: str):
    """An object for OpenAI's API, a text for the article's."""
    behave(lab, error_rate=1, error_status=503)

    answer = http.post(lab.url + path, json={**CALL, "message": "x"})

    assert answer.status_code == 503
    assert answer.headers["X-Backend"] == "backend-1"
    assert isinstance(answer.json()["error"], dict if path.startswith("/v1") else str)


def test_healing_ends_it(lab: Running):
    """DELETE removes every fault."""
    behave(lab, error_rate=1)
    assert http.delete(lab.panel + "/behaviour").json()["error_rate"] == 0

    assert http.get(lab.url).ok


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions", "/completions"])
def test_a_hung_request_is_answered_when_healed(lab: Running, path: str):
    """Its body was not lost meanwhile."""
    behave(lab, hang=True)
    answers: list[requests.Response] = []

    def ask() -> None:
        answers.append(http.post(lab.url + path, json={**CALL, "message": "x"}))

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(0.2)
    assert asking.is_alive()
    http.delete(lab.panel + "/behaviour")
    asking.join(10)

    assert answers[0].ok


def test_a_hung_request_whose_client_leaves_is_journalled(lab: Running):
    """499, nobody else is harmed."""
    behave(lab, hang=True)
    with pytest.raises(requests.ReadTimeout):
        http.post(lab.url + "/chat", json={"message": "x"}, timeout=0.1)

    line = lab.lines(1)[0]

    assert (line["status"], line["fate"]) == (499, "client_gone")


def test_a_body_over_the_limit_is_refused_even_while_hanging(lab: Running):
    """Stated or chunked."""
    behave(lab, hang=True)

    for body in (b"x" * 2_000_000, iter([b"x" * 2_000_000])):
        assert http.post(lab.url + "/completions", data=body).status_code == 413


def test_a_stream_is_dropped_after_so_many_tokens(lab: Running):
    """The tokens arrive, the end of the stream does not."""
    behave(lab, drop_after_tokens=4)
    pieces = stream(lab).iter_content(None)

    received = b"".join(islice(pieces, 4))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        next(pieces)

    line = lab.lines(1)[0]
    assert received.count(b'"delta":{"content"') == 4
    assert b"[DONE]" not in received
    assert (line["status"], line["fate"], line["tokens_sent"]) == (200, "dropped", 4)


def test_an_unstreamed_answer_is_dropped_in_the_middle(lab: Running):
    """The response head was sent, so nginx cannot retry."""
    behave(lab, drop_rate=1)

    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        http.get(lab.url)

    line = lab.lines(1)[0]
    assert (line["status"], line["bytes"], line["fate"]) == (200, 12, "dropped")


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
def test_drop_after_zero_tokens_sends_no_byte(lab: Running, path: str):
    """Not a byte: nginx may try another server."""
    behave(lab, drop_after_tokens=0)

    with pytest.raises(requests.ConnectionError, match="closed connection without response"):
        http.post(lab.url + path, json={**CALL, "message": "x", "stream": True})

    line = lab.lines(1)[0]
    assert (line["status"], line["bytes"], line["fate"]) == (0, 0, "dropped")


def test_malformed_json_lacks_its_last_character(lab: Running):
    """The last character is missing, the length is true."""
    behave(lab, malformed_json=True)

    answer = http.post(lab.url + "/chat", json={"message": "x"})
    streamed = stream(lab).content.decode()

    with pytest.raises(requests.exceptions.JSONDecodeError):
        answer.json()
    assert answer.text.endswith('+00:00"')
    assert '"finish_reason":null}]\n\n' in streamed
    assert streamed.endswith("data: [DONE]\n\n")


def test_slow_counts_an_instant_answer_as_ten_milliseconds(lab: Running):
    """A factor of 3 delays an instant answer by 20 ms."""
    behave(lab, slow=3)
    http.get(lab.url)
    http.post(lab.url + "/chat", json={"message": "x"})
    http.post(lab.url + "/v1/chat/completions", json=CALL)

    assert all(line["duration"] >= 0.02 for line in lab.lines(3))


def test_slow_multiplies_durations(lab: Running):
    """50 ms become 100."""
    behave(lab, slow=2)
    http.get(lab.url, headers={"X-Lab-Duration": "0.05"})

    assert lab.lines(1)[0]["duration"] >= 0.1


def test_only_health_is_refused_by_refuse_health(lab: Running):
    """Other faults do not affect /health."""
    behave(lab, refuse_health=True)
    assert http.get(lab.url + "/health").status_code == 503
    assert http.get(lab.url).ok

    behave(lab, hang=True, error_rate=1)
    assert http.get(lab.url + "/health").ok


def test_a_stopping_backend_releases_held_requests(start: Callable[..., Running]):
    """Held requests are answered before it exits."""
    lab = start()
    behave(lab, hang=True)
    statuses: list[int] = []
    asking = threading.Thread(target=lambda: statuses.append(http.get(lab.url).status_code))
    asking.start()
    asking.join(0.2)

    lab.service.stop()
    asking.join(10)

    assert statuses == [200]
