"""What arrives on a connection: bytes that no client library would send."""

import json
import select
import socket
from contextlib import ExitStack, suppress

import pytest

from tests.backends.serving import Running

CHAT = b'POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{"message":"a"}'
SLOW = b"GET / HTTP/1.1\r\nHost: a\r\nX-Lab-Duration: 0.01\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def exchanged(lab: Running, sent: bytes) -> bytes:
    """Everything that comes back until the backend closes the connection."""
    with socket.create_connection(("127.0.0.1", lab.port), timeout=10) as connection:
        connection.sendall(sent)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_cannot_be_parsed_is_answered_in_json(lab: Running, sent: bytes):
    """400 with the article's error, then the connection closes."""
    head, _, body = exchanged(lab, sent).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-backend: backend-1" in head
    assert set(json.loads(body)) == {"error", "server", "timestamp"}
    assert exchanged(lab, LAST).startswith(b"HTTP/1.1 200 ")


def test_a_method_that_the_parser_does_not_know_is_not_allowed(lab: Running):
    """405 like any other, with what is allowed."""
    answer = exchanged(lab, b"SHOUT /chat HTTP/1.1\r\nHost: a\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD, POST\r\n" in answer


def test_a_request_head_without_end_is_refused(lab: Running):
    """Before it fills the memory."""
    endless = b"GET / HTTP/1.1\r\n" + b"X-More: and more\r\n" * 1_000_000

    address = ("127.0.0.1", lab.port)
    with (
        socket.create_connection(address, timeout=10) as connection,
        pytest.raises(ConnectionError),
    ):
        connection.sendall(endless)

    assert exchanged(lab, LAST).startswith(b"HTTP/1.1 200 ")


def test_a_post_without_length_is_refused(lab: Running):
    """411: a body of unknown length may follow."""
    sent = b"POST /chat HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    assert exchanged(lab, sent).startswith(b"HTTP/1.1 411 ")


def test_pipelined_requests_are_answered_in_order(lab: Running):
    """A request on the fast path waits for an earlier one on the slow path."""
    answers = exchanged(lab, CHAT + SLOW + CHAT + LAST)

    kinds = [b"Processed" in part for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert kinds == [True, False, True, False]
    assert [line["path"] for line in lab.lines(4)] == ["/chat", "/", "/chat", "/last"]


def test_garbage_after_a_request_does_not_replace_its_answer(lab: Running):
    """No answer at all is better than one that looks like another request's."""
    assert b"400" not in exchanged(lab, SLOW + b"nonsense\r\n\r\n")


@pytest.mark.parametrize("size", [b"100", b"2000000"])
def test_expect_continue_is_answered_only_where_the_body_is_wanted(lab: Running, size: bytes):
    """A body over the limit is refused before it is sent."""
    head = b"POST /completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", lab.port), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: " + size + b"\r\n\r\n")
        answer = connection.recv(65536)

    assert answer.startswith(b"HTTP/1.1 100 " if size == b"100" else b"HTTP/1.1 413 ")


def test_http_1_0_closes_after_its_answer(lab: Running):
    """As the article's nginx asks of its backends."""
    answer = exchanged(lab, b"GET / HTTP/1.0\r\n\r\n")

    assert answer.endswith(b"Response from: backend-1")


@pytest.mark.parametrize(
    ("line", "journalled"),
    [
        (b"FOO /x HTTP/1.1", ("r2", "FOO", "/x", 405)),
        (b"GET /a\xff\x01 HTTP/1.1", ("r2", "GET", "/a\xff\x01", 400)),
    ],
)
def test_a_request_that_cannot_be_parsed_is_journalled_with_its_id(
    lab: Running, line: bytes, journalled: tuple[object, ...]
):
    """The journal has its own id, not that of the previous request on the connection."""
    with socket.create_connection(("127.0.0.1", lab.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Request-ID: r1\r\n\r\n")
        connection.recv(65536)
        connection.sendall(line + b"\r\nx-request-id: r2\r\n\r\n")
        connection.recv(65536)

    last = lab.lines(2)[-1]
    assert (last["id"], last["method"], last["path"], last["status"]) == journalled


@pytest.mark.parametrize("more", [b"", b"X-Lab-Duration: 0\r\n"])
def test_a_client_that_disconnects_within_its_body_is_journalled(lab: Running, more: bytes):
    """499, as nginx says it."""
    with socket.create_connection(("127.0.0.1", lab.port)) as connection:
        connection.sendall(
            b"POST /chat HTTP/1.1\r\nX-Request-ID: r1\r\n" + more + b"Content-Length: 99\r\n\r\n{"
        )

    line = lab.lines(1)[0]

    assert (line["id"], line["status"], line["fate"]) == ("r1", 499, "client_gone")


def test_a_request_that_drips_in_is_refused_after_its_arrival_time(start):
    """408 after ARRIVAL, however short the gaps: inside a head, and inside both kinds of body."""
    lab = start(arrival=1)
    body = b"Content-Length: 99\r\n\r\n{"
    simple, timed = (
        b"POST /chat HTTP/1.1\r\n" + more + body for more in (b"", b"X-Lab-Duration: 0\r\n")
    )
    parts = (b"GET / HTTP/1.1\r\nX: ", simple, timed)
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", lab.port), timeout=10))
            for _ in parts
        ]
        for connection, part in zip(slow, parts, strict=True):
            connection.sendall(part)
        ends = []
        for _ in range(50):
            if not slow:
                break
            ready, _, _ = select.select(slow, [], [], 0.1)
            ends += [connection.recv(65536) for connection in ready]
            slow = [connection for connection in slow if connection not in ready]
            for connection in slow:
                with suppress(ConnectionError):  # answered and closed since `select` looked
                    connection.sendall(b"x")

    assert [end.partition(b"\r\n")[0] for end in ends] == [b"HTTP/1.1 408 Request Timeout"] * 3
    assert all(b"did not arrive in full within 1 s" in end for end in ends)
    assert sorted(line["status"] for line in lab.lines(3)) == [408, 408, 499]


@pytest.mark.parametrize("requests", [[CHAT, CHAT], [CHAT, SLOW], [SLOW, CHAT]])
def test_an_idle_connection_is_closed_by_the_backend(start, requests: list[bytes]):
    """After KEEP_ALIVE, whichever way its requests were answered."""
    answers = exchanged(start(keep_alive=1), b"".join(requests))

    assert answers.count(b"HTTP/1.1 200 OK") == 2
