"""The article's API, on the fast path and by uvicorn."""

import re
from datetime import datetime
from typing import Any

import pytest
import requests

from tests.backends.serving import Running, http

# a header that makes a request take uvicorn's way
WAYS = [pytest.param({}, id="short"), pytest.param({"X-Lab-Duration": "0"}, id="long")]


def signed(answer: requests.Response) -> dict[str, Any]:
    """An answer's JSON without server and timestamp, which are checked."""
    content: dict[str, Any] = answer.json()
    assert content.pop("server") == "backend-1"
    assert datetime.fromisoformat(content.pop("timestamp")).tzinfo
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Backend"] == "backend-1"
    return content


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/", "/any/path?with=query", "/chat", "/%E2%82%AC", "/healthy"])
def test_get_of_any_path_tells_who_answers(lab: Running, way: dict[str, str], path: str):
    """The article's 18 bytes or so."""
    answer = http.get(lab.url + path, headers=way)

    assert (answer.status_code, answer.text) == (200, "Response from: backend-1")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Backend"] == "backend-1"


@pytest.mark.parametrize("way", WAYS)
def test_chat_answers_in_upper_case(lab: Running, way: dict[str, str]):
    """The response is the message in upper case, in any script."""
    answer = http.post(lab.url + "/chat", json={"message": "grüße, ok"}, headers=way)

    assert answer.status_code == 200
    assert signed(answer) == {
        "original": "grüße, ok",
        "response": "Processed by chat API: GRÜSSE, OK",
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("Hello, I am the assistant!", "Hello", "tant!"),
        ("日本語でどうぞ", "日本語でど", "語でどうぞ"),
        ("", "", ""),
    ],
)
def test_completions_have_the_first_and_the_last_five_characters(
    lab: Running, way: dict[str, str], text: str, first: str, last: str
):
    """Characters, not bytes."""
    answer = http.post(
        lab.url + "/completions",
        data=text.encode(),
        headers={**way, "Content-Length": str(len(text.encode()))},
    )

    assert signed(answer) == {
        "completions": [
            {"text": f"Completion 1: {first}...", "index": 0},
            {"text": f"Completion 2: {last}...", "index": 1},
        ]
    }


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/chat", b"{", 400, "body is not JSON: .*"),
        ("/chat", b"", 400, "body is not JSON: .*"),
        ("/chat", b"[" * 100_000, 400, "body is not JSON: .*"),
        ("/chat", b'{"message": NaN}', 400, "body is not JSON: .*"),
        ("/chat", b'{"message": ' + b"9" * 5000 + b"}", 400, ".*"),
        ("/chat", b"[]", 400, "body must be a JSON object"),
        ("/chat", b"{}", 400, '"message" must be a string'),
        ("/chat", b'{"message": 1}', 400, '"message" must be a string'),
        ("/chat", b'{"message": "\xff"}', 400, r"body is not UTF-8 \(byte 13\)"),
        ("/completions", b"abc\xff", 400, r"body is not UTF-8 \(byte 3\)"),
        ("/chat", b" " * 2_000_000, 413, "body over the limit of 1048576 bytes"),
        ("/nowhere", b"{}", 404, "no such path: POST /nowhere"),
        (
            "/chat/completions",
            b"{}",
            404,
            "no such path: POST /chat/completions; OpenAI's API is under /v1/",
        ),
    ],
)
def test_a_bad_post_gets_a_json_error(
    lab: Running, way: dict[str, str], path: str, body: bytes, status: int, error: str
):
    """And the service continues."""
    answer = http.post(lab.url + path, data=body, headers={**way, "Content-Length": str(len(body))})

    assert answer.status_code == status
    assert re.fullmatch(error, signed(answer)["error"])
    assert http.get(lab.url).ok


def test_a_lone_surrogate_is_returned_unchanged(lab: Running):
    """JSON can encode it, UTF-8 cannot."""
    answer = http.post(lab.url + "/chat", data=b'{"message": "\\ud800"}')

    assert signed(answer)["original"] == "\ud800"


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (2_000_000, 413)])
def test_a_chunked_body_has_the_same_limit(lab: Running, size: int, status: int):
    """It is counted as it comes in."""
    answer = http.post(lab.url + "/completions", data=iter([b"x" * size]))

    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/chat", "/other"])
def test_other_methods_are_refused_with_what_is_allowed(lab: Running, path: str):
    """405 with Allow."""
    answer = http.delete(lab.url + path)

    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert signed(answer) == {"error": "method DELETE is not allowed here"}


@pytest.mark.parametrize("seconds", ["long", "-1", "601", "nan", "inf"])
def test_a_duration_is_seconds_up_to_ten_minutes(lab: Running, seconds: str):
    """Anything else is refused, not guessed."""
    answer = http.get(lab.url, headers={"X-Lab-Duration": seconds})

    assert answer.status_code == 400
    assert signed(answer) == {"error": "X-Lab-Duration must be seconds from 0 to 600"}


def test_an_answer_takes_the_requested_duration(lab: Running):
    """The journal's duration is never below the requested one."""
    http.post(lab.url + "/chat", json={"message": "x"}, headers={"X-Lab-Duration": "0.05"})

    assert lab.lines(1)[0]["duration"] >= 0.05


def test_head_has_no_body(lab: Running):
    """The headers are those of GET."""
    answer = http.head(lab.url)

    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "24")
    assert lab.lines(1)[0]["bytes"] == 0
