"""The behaviour port."""

from collections.abc import Callable

import pytest

from tests.backends.serving import Running, http


def test_a_behaviour_replaces_the_one_before(lab: Running):
    """Fields that are not set again are reset."""
    http.put(lab.panel + "/behaviour", json={"hang": True})
    http.put(lab.panel + "/behaviour", json={"slow": 2})

    answer = http.get(lab.panel + "/behaviour").json()

    assert (answer["hang"], answer["slow"]) == (False, 2.0)


def test_a_profile_is_changed_while_it_runs(start: Callable[..., Running]):
    """Name and speed, either or both."""
    lab = start()
    http.put(lab.panel + "/profile", json={"profile": "l40s-8b"})
    answer = http.put(lab.panel + "/profile", json={"time_scale": 2}).json()

    assert (answer["name"], answer["time_scale"], answer["max_num_seqs"]) == ("l40s-8b", 2.0, 256)
    assert http.get(lab.panel + "/profile").json() == answer


def test_limits_replace_those_of_a_profile_until_one_is_set(start: Callable[..., Running]):
    """What is not the profile's is listed; a profile that is named comes with its own limits."""
    lab = start()
    http.put(lab.panel + "/profile", json={"profile": "h100-8b", "max_num_seqs": 4})
    limited = http.put(lab.panel + "/profile", json={"queue_limit": 2}).json()
    reset = http.put(lab.panel + "/profile", json={"profile": "h100-8b"}).json()

    assert (limited["max_num_seqs"], limited["max_queued"]) == (4, 2)
    assert limited["limits"] == {"max_num_seqs": 4, "queue_limit": 2}
    assert reset["limits"] == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/behaviour", b"{", 400),
        ("PUT", "/behaviour", b"[]", 400),
        ("PUT", "/behaviour", b'{"x": 1}', 400),
        ("PUT", "/profile", b"{}", 400),
        ("PUT", "/profile", b'{"profile": "h200"}', 400),
        ("PUT", "/profile", b'{"profile": ["instant"]}', 400),
        ("PUT", "/profile", b'{"time_scale": 0}', 400),
        ("PUT", "/profile", b'{"time_scale": true}', 400),
        ("PUT", "/profile", b'{"kv_blocks": -1}', 400),
        ("PUT", "/profile", b'{"queue_limit": "5"}', 400),
        ("PUT", "/behaviour", b" " * 100_000, 413),
        ("POST", "/behaviour", b"{}", 405),
        ("GET", "/other", None, 404),
    ],
)
def test_bad_input_gets_a_json_error_and_changes_nothing(
    lab: Running, method: str, path: str, body: bytes | None, status: int
):
    """error, server, timestamp."""
    before = http.get(lab.panel + "/profile").json()

    answer = http.request(method, lab.panel + path, data=body)

    assert answer.status_code == status
    assert set(answer.json()) == {"error", "server", "timestamp"}
    assert http.get(lab.panel + "/profile").json() == before


def test_the_backends_own_port_has_no_behaviours(lab: Running):
    """On the service's port /behaviour is an ordinary path."""
    assert http.put(lab.url + "/behaviour", json={"hang": True}).status_code == 405
    assert http.get(lab.url + "/behaviour").text == "Response from: backend-1"


def test_the_prefix_cache_is_emptied_on_request(lab: Running):
    """Two loads can then start with an empty cache."""
    asked = {"model": "lab-llm", "prompt": "word " * 64, "max_tokens": 4}
    http.post(lab.url + "/v1/completions", json=asked)
    held = http.get(lab.panel + "/cache").json()["blocks"]

    emptied = http.delete(lab.panel + "/cache").json()

    assert held > 0
    assert emptied["blocks"] == 0
