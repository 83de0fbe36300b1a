"""The article's clients against a server that answers, errs, stalls and breaks off."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import LabError, UsageError
from nginx_llm_lab.traffic.clients import AsyncClient, CallError, Piece, SyncClient, _Events

PATIENCE = 0.3  # seconds that a client waits for a server that never answers
NEVER = ("silent", "stall", "dribble")


def http(status: str, body: bytes, headers: str = "") -> bytes:
    """A whole answer as it goes over the wire."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def sse(*events: str, end: bytes = b"0\r\n\r\n") -> bytes:
    """A streamed answer of backend-2, each event in a chunk of its own."""
    lines = [f"data: {event}\n\n".encode() for event in events]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
    head = b"HTTP/1.1 200 OK\r\nX-Backend: backend-2\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + end


def delta(text: str | None) -> str:
    """One event of OpenAI's stream."""
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


WIRE = {
    "fine": http("200 OK", b'{"response":"HI","server":"backend-1"}'),
    "array": http("200 OK", b"[1]"),
    "empty": http("200 OK", b""),
    "article": http("400 Bad Request", b'{"error":"Invalid JSON format","server":"b"}'),
    "openai": http("404 Not Found", b'{"error":{"message":"no such model","type":"x"}}'),
    "nginx": http("502 Bad Gateway", b"<html><head><title>502 Bad Gateway</title></head></html>"),
    "moved": http("302 Found", b"", "Location: /fine/chat\r\n"),
    "short": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"response"',
    "cut": b"",
    "garbage": b"\x16\x03\x01 hello\r\n\r\n",
    "stream": sse(
        json.dumps({"choices": [{"delta": {"role": "assistant"}}]}),
        delta("Hél"),
        delta("lo"),
        delta(None),
        json.dumps({"choices": [], "usage": {"completion_tokens": 2}}),
        "[DONE]",
    ),
    "unfinished": sse(delta("a"), delta("b")),
    "torn": sse(delta("a"), delta("b"), end=b"ffff\r\ndata: {"),
    "erring": sse(delta("a"), json.dumps({"error": {"message": "out of memory"}})),
    "muddled": sse(delta("a"), "{not json"),
    "torn-after-done": sse(delta("a"), "[DONE]", end=b"ff\r\n"),
}


class Scripted(BaseHTTPRequestHandler):
    """Answers a POST to /CASE/… with the bytes of that case, then closes."""

    server: "Server"

    def do_POST(self) -> None:
        """Answer as the case has it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        case = self.path.split("/")[1]
        self.server.seen.append((self.path, self.headers["Content-Type"], body))
        self.close_connection = case != "fine"
        if case == "dribble":
            self._dribble()
        elif case == "stall":
            self.wfile.write(sse(delta("a"), end=b""))
            self.server.over.wait()
        elif case == "silent":
            self.server.over.wait()
        else:
            self.wfile.write(WIRE[case])

    def _dribble(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not self.server.over.wait(PATIENCE / 10):
            try:
                self.wfile.write(b" ")
            except OSError:  # the client gave up, as it should
                return

    def handle(self) -> None:
        """Count the connection."""
        self.server.connections += 1
        super().handle()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """The server, what it was sent, and the event that ends its waits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        Scripted.protocol_version = "HTTP/1.1"
        self.seen: list[tuple[str, str, bytes]] = []
        self.connections = 0
        self.over = threading.Event()

    def url(self, case: str) -> str:
        """The address of a lab that answers in one way."""
        return f"http://127.0.0.1:{self.server_address[1]}/{case}"


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a free port of its own."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


def patience(url: str) -> float:
    """Seconds to wait: few where only the wait's end is tested, ample where an answer comes."""
    return PATIENCE if url.endswith(NEVER) else 30


def sync_chat(url: str) -> dict[str, Any]:
    """Chat on requests."""
    with SyncClient(url, patience(url)) as client:
        return client.chat("hi")


def async_chat(url: str) -> dict[str, Any]:
    """Chat on aiohttp, in a session that is kept."""

    async def talk() -> dict[str, Any]:
        async with AsyncClient(url, patience(url)) as client:
            return await client.chat("hi")

    return asyncio.run(talk())


def sync_stream(url: str) -> Iterator[Piece]:
    """Stream on requests."""
    with SyncClient(url, patience(url)) as client:
        yield from client.chat_stream("hi")


def async_stream(url: str) -> Iterator[Piece]:
    """Stream on aiohttp; what came before an error comes before it here too."""
    pieces: list[Piece] = []

    async def talk() -> None:
        async for piece in AsyncClient(url, patience(url)).chat_stream("hi"):
            pieces.append(piece)  # noqa: PERF401 - a comprehension would lose them at an error

    try:
        asyncio.run(talk())
    finally:
        yield from pieces


both_chats = pytest.mark.parametrize("chat", [sync_chat, async_chat])
both_streams = pytest.mark.parametrize("stream", [sync_stream, async_stream])
Chat = Callable[[str], dict[str, Any]]
Stream = Callable[[str], Iterator[Piece]]


@both_chats
def test_a_chat_is_the_articles(chat: Chat, server: Server) -> None:
    """POST /chat with a message as JSON; the answer is the server's object."""
    assert chat(server.url("fine")) == {"response": "HI", "server": "backend-1"}
    assert server.seen == [("/fine/chat", "application/json", b'{"message": "hi"}')]


def test_a_completion_is_the_articles(server: Server) -> None:
    """POST /completions with the bare text, by either client."""
    with SyncClient(server.url("fine")) as client:
        client.completions("é")
    asyncio.run(AsyncClient(server.url("fine")).completions("é"))

    sent = ("/fine/completions", "text/plain; charset=utf-8", "é".encode())
    assert server.seen == [sent, sent]


def test_one_connection_serves_many_calls(server: Server) -> None:
    """Each client keeps its connection alive."""
    with SyncClient(server.url("fine")) as client:
        client.chat("one")
        client.chat("two")

    async def talk() -> None:
        async with AsyncClient(server.url("fine")) as client:
            await client.chat("one")
            await client.chat("two")

    asyncio.run(talk())

    assert (len(server.seen), server.connections) == (4, 2)


@both_chats
@pytest.mark.parametrize(
    ("case", "kind", "message"),
    [
        ("article", "status 400", "answered 400: Invalid JSON format"),
        ("openai", "status 404", "answered 404: no such model"),
        ("nginx", "status 502", "answered 502: 502 Bad Gateway"),
        ("moved", "status 302", "answered 302: nothing"),
        ("array", "not JSON", "answered with something other than a JSON object: [1]"),
        ("empty", "not JSON", "answered with something other than a JSON object: nothing"),
        ("short", "broken off", "closed the connection before the end of its response: "),
        ("cut", "broken off", "closed the connection before the end of its response: "),
        ("garbage", "broken off", "closed the connection before the end of its response: "),
        ("silent", "timeout", "in 0.3 s"),
        ("dribble", "timeout", "in 0.3 s"),
    ],
)
def test_a_failure_names_the_url_and_the_server_s_message(
    chat: Chat, server: Server, case: str, kind: str, message: str
) -> None:
    """The article's and OpenAI's errors, nginx's page, a broken and a silent server."""
    with pytest.raises(CallError) as error:
        chat(server.url(case))

    assert error.value.kind == kind
    assert server.url(case) + "/chat" in error.value.message
    assert message in error.value.message


@both_chats
def test_a_lab_that_is_down_says_how_to_bring_it_up(chat: Chat) -> None:
    """Nothing listens on the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(CallError) as error:
            chat(url)

    assert str(error.value) == f"error: no connection to {url}/chat\ntry:   lab up"


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://a", "http://", "http://a:b", "http://["]
)
def test_an_address_without_scheme_or_host_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError, match="not the URL of a lab"):
        SyncClient(url)
    with pytest.raises(UsageError, match="not the URL of a lab"):
        AsyncClient(url)


@both_streams
def test_a_stream_comes_piece_by_piece(stream: Stream, server: Server) -> None:
    """Role, empty and usage events bring no text; every piece knows its server."""
    pieces = list(stream(server.url("stream")))

    assert pieces == ["Hél", "lo"]
    assert {piece.server for piece in pieces} == {"backend-2"}


def test_a_stream_is_asked_for_as_openai_has_it(server: Server) -> None:
    """Model, one message, and a limit of tokens only where one is given."""
    with SyncClient(server.url("stream")) as client:
        list(client.chat_stream("hi", model="m", max_tokens=5))

    (path, _, body) = server.seen[0]
    assert path == "/stream/v1/chat/completions"
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 5,
    }


@both_streams
@pytest.mark.parametrize(
    ("case", "came", "message"),
    [
        ("unfinished", ["a", "b"], "ended without [DONE] after 2 pieces"),
        ("torn", ["a", "b"], "after 2 pieces"),
        ("erring", ["a"], "broke off (out of memory) after 1 piece"),
        ("muddled", ["a"], "sent an event that is not JSON: b'{not json' after 1 piece"),
        ("stall", ["a"], "broke off (silent for 0.3 s) after 1 piece"),
        ("fine", [], "ended without [DONE] after 0 pieces"),
    ],
)
def test_a_truncated_stream_says_how_many_pieces_had_come(
    stream: Stream, server: Server, case: str, came: list[str], message: str
) -> None:
    """The pieces come first, then the error."""
    pieces: list[str] = []

    with pytest.raises(CallError) as error:
        pieces.extend(stream(server.url(case)))

    assert pieces == came
    assert error.value.kind == "truncated"
    assert message in error.value.message


@both_streams
def test_after_done_nothing_can_be_lost(stream: Stream, server: Server) -> None:
    """A connection that breaks after [DONE] takes nothing with it."""
    assert list(stream(server.url("torn-after-done"))) == ["a"]


@both_streams
@pytest.mark.parametrize(("case", "kind"), [("nginx", "status 502"), ("silent", "timeout")])
def test_a_stream_that_never_begins_fails_as_a_call_does(
    stream: Stream, server: Server, case: str, kind: str
) -> None:
    """No stream, so none was truncated."""
    with pytest.raises(CallError) as error:
        list(stream(server.url(case)))
    assert error.value.kind == kind


def read(chunks: list[bytes]) -> list[Piece]:
    """The pieces of a stream that arrives in these chunks."""
    events = _Events("http://lab")
    return [piece for chunk in chunks for piece in events.pieces(chunk)] + list(events.end())


@given(
    st.lists(st.text(min_size=1)), st.lists(st.integers(0, 400)), st.sampled_from(["\n", "\r\n"])
)
def test_it_does_not_matter_where_the_network_cuts(
    texts: list[str], cuts: list[int], newline: str
) -> None:
    """Chunks may end inside an event, a line or a character."""
    lines = [f"data: {delta(text)}{newline}{newline}" for text in texts]
    wire = "".join([": comment", newline, *lines, "data: [DONE]"]).encode()
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]

    assert read([wire[a:b] for a, b in pairwise(edges)]) == texts


@given(st.lists(st.binary() | st.binary().map(lambda text: b"data: " + text + b"\n")))
def test_any_bytes_of_a_stream_are_read_or_refused(chunks: list[bytes]) -> None:
    """The only error is a LabError, and there is no text without [DONE]."""
    with pytest.raises(LabError):
        read([chunk.replace(b"[DONE]", b"") for chunk in chunks])


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "content", "error", "message"]), v
            )
        ),
    )
)
def test_events_of_any_shape_are_read_or_refused(event: Any) -> None:
    """An event may hold anything at any place."""
    with suppress(LabError):
        assert read([b"data: " + json.dumps(event).encode() + b"\ndata: [DONE]"]) is not None


def test_an_endless_line_is_an_error() -> None:
    """Two megabytes without a newline are no event."""
    with pytest.raises(CallError, match="sent a line without end"):
        read([b"data: " + b"x" * 2_000_000])
