"""The article's stress test against a server that answers most of what it is asked."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import ClassVar

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence.split import Split
from nginx_llm_lab.traffic.stress import StressReport, stress


class Lab(BaseHTTPRequestHandler):
    """Three backends in turn; /dear refuses every fourth call."""

    turns = count()
    seconds = 0.0  # that an answer takes
    open: ClassVar[set[object]] = set()
    most_open = 0

    def do_POST(self) -> None:
        """Answer in the name of the backend whose turn it is."""
        Lab.open.add(self)
        Lab.most_open = max(Lab.most_open, len(Lab.open))
        time.sleep(Lab.seconds)
        Lab.open.discard(self)
        self.rfile.read(int(self.headers["Content-Length"]))
        turn = next(Lab.turns)
        name = f"backend-{turn % 3 + 1}"
        if self.path.startswith("/dear") and turn % 4 == 0:
            self.send(503, b'{"error":"busy"}', name)
        elif self.path.endswith("/v1/chat/completions"):
            event = json.dumps({"choices": [{"delta": {"content": "x"}}]}).encode()
            self.send(200, b"data: " + event + b"\n\n" * 2 + b"data: [DONE]\n\n", name)
        elif self.path.endswith("/chat"):
            self.send(200, json.dumps({"server": name}).encode(), name)
        else:
            self.send(200, b"{}", name)

    def send(self, status: int, body: bytes, backend: str) -> None:
        """Write a whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if backend:
            self.send_header("X-Backend", backend)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server that takes a crowd at once."""

    request_queue_size = 512


@pytest.fixture
def url() -> Iterator[str]:
    """A lab on a free port of its own, its turns from the start."""
    Lab.turns = count()
    with Server(("127.0.0.1", 0), Lab) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_all_calls_are_answered_and_split(url: str) -> None:
    """100 chats and 100 completions at once, told apart by X-Backend."""
    report = stress(url)

    assert report.complete
    assert report.answered == {"chats": 100, "completions": 100}
    assert str(report.split) == "backend-1: 67, backend-2: 67, backend-3: 66"


def test_no_more_calls_than_docker_forwards_are_in_flight(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for an answer; none is lost."""
    monkeypatch.setattr("nginx_llm_lab.traffic.stress.AT_ONCE", 4)
    monkeypatch.setattr(Lab, "seconds", 0.02)
    Lab.most_open = 0

    report = stress(url, chats=21, completions=20)

    assert report.answered == {"chats": 21, "completions": 20}
    assert 1 < Lab.most_open <= 4


def test_streams_are_counted_with_their_pieces(url: str) -> None:
    """Three streams of one piece each, one from every backend."""
    report = stress(url, chats=0, completions=0, streams=3)

    assert (report.answered, report.pieces) == ({"streams": 3}, 3)
    assert str(report.split) == "backend-1: 1, backend-2: 1, backend-3: 1"


def test_failures_are_counted_by_kind_with_the_servers_words(url: str) -> None:
    """Every fourth call is refused: none is lost, the rest are answered."""
    report = stress(url + "/dear", chats=8, completions=0)

    assert not report.complete
    assert (report.answered, report.failures) == ({"chats": 6}, {"chats, status 503": 2})
    assert report.examples == {"chats, status 503": '503 {"error":"busy"}'}


def test_a_lab_that_is_down_fails_every_call() -> None:
    """Nothing raises: the report says that nothing was answered."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        report = stress(f"http://127.0.0.1:{taken.getsockname()[1]}", 2, 3, 4)

    assert report.failures == {
        "chats, no connection": 2,
        "completions, no connection": 3,
        "streams, no connection": 4,
    }


def test_no_calls_are_no_failure() -> None:
    """Nothing is sent, nothing is missing."""
    report = stress("http://127.0.0.1:1", 0, 0)

    assert report.complete
    assert str(report).endswith("(no calls)")


def test_a_number_below_zero_is_refused() -> None:
    """It would be counted as sent."""
    with pytest.raises(UsageError, match="the number of calls must not be negative: -1"):
        stress("http://127.0.0.1:1", -1)


REPORT = StressReport(
    sent={"chats": 4, "completions": 2, "streams": 0},
    answered={"chats": 3, "completions": 2},
    split=Split({"backend-1": 3, "backend-2": 2}),
    failures={"chats, status 502": 1},
    examples={"chats, status 502": "http://lab/chat answered 502: 502 Bad Gateway"},
    pieces=0,
    seconds=1.23456,
)


def test_a_report_is_printed_in_words() -> None:
    """What was answered, by whom, and what failed and why."""
    assert str(REPORT) == (
        "5 of 6 answered in 1.23 s (4 chats + 2 completions)\n"
        "backend-1: 3, backend-2: 2\n"
        "failed: 1 chats, status 502: http://lab/chat answered 502: 502 Bad Gateway"
    )


def test_a_report_is_plain_values_for_json() -> None:
    """Every field, by name."""
    assert json.loads(json.dumps(REPORT.as_dict())) == {
        "sent": {"chats": 4, "completions": 2, "streams": 0},
        "answered": {"chats": 3, "completions": 2},
        "split": {"backend-1": 3, "backend-2": 2},
        "failures": {"chats, status 502": 1},
        "examples": {"chats, status 502": "http://lab/chat answered 502: 502 Bad Gateway"},
        "pieces": 0,
        "seconds": 1.235,
    }
