"""The generator sends on time, waits only for the same user's response, records every request."""

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.nginxconf.request import Request
from nginx_llm_lab.signals import INTERRUPTIONS, Terminated, terminate
from nginx_llm_lab.traffic.scenario import Lengths, Scenario, Sessions
from nginx_llm_lab.traffic.sender import Progress, cancelled_by_sigterm, generate
from nginx_llm_lab.traffic.workload import Plan, fixed, plan

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scenario(**changes: Any) -> Scenario:
    """Three requests a thousandth of a second apart, answers of four tokens."""
    fields: dict[str, Any] = {"requests": 3, "arrivals": "constant", "rate": 1000.0, **changes}
    fields.setdefault("output", Lengths(tokens=4))
    return Scenario("test", **fields)


def send(handler: Handler, asked: Scenario, **bounds: Any) -> list[Record]:
    """The records of `asked`, sent to a server that answers with `handler`."""
    return asyncio.run(sent(handler, asked, **bounds))


async def sent(handler: Handler, asked: Scenario, **bounds: Any) -> list[Record]:
    """As `send`, within a loop."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    app.router.add_post("/v1/completions", handler)
    async with TestServer(app) as server:
        bounds.setdefault("limit", 20.0)
        return await generate(plan(asked), str(server.make_url("")), **bounds)


def event(fields: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def token(text: str = "word ") -> bytes:
    """A chunk that brings a token."""
    return event({"choices": [{"delta": {"content": text}}], "usage": None})


def usage(tokens: int) -> dict[str, Any]:
    """What a server says of its tokens."""
    details = {"cached_tokens": 64}
    return {"prompt_tokens": 256, "completion_tokens": tokens, "prompt_tokens_details": details}


async def begin(request: web.Request) -> web.StreamResponse:
    """The head of a stream from a backend that says its name."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "X-Backend": "backend-1"}
    )
    await response.prepare(request)
    return response


async def whole(request: web.Request) -> web.StreamResponse:
    """As many tokens as asked for, usage and [DONE], as OpenAI's API sends them."""
    asked = await request.json()
    response = await begin(request)
    await response.write(event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
    for _ in range(asked["max_tokens"]):
        await response.write(token())
    await response.write(event({"choices": [{"delta": {}, "finish_reason": "length"}]}))
    await response.write(event({"choices": [], "usage": usage(asked["max_tokens"])}))
    await response.write(b"data: [DONE]\n\n")
    return response


def bodies(*pieces: bytes) -> Handler:
    """A server that streams these pieces and ends the answer in good order."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await begin(request)
        for piece in pieces:
            await response.write(piece)
        return response

    return answer


async def broken_off(request: web.Request) -> web.StreamResponse:
    """Two tokens, then the connection is gone."""
    response = await begin(request)
    await response.write(token() + token())
    assert request.transport is not None
    request.transport.abort()
    return response


async def never(_: web.Request) -> web.StreamResponse:
    """A server that hangs."""
    await asyncio.Event().wait()
    raise AssertionError


def test_every_request_has_one_whole_record() -> None:
    """Tokens, usage, backend and times of a stream that went well."""
    records = send(whole, scenario())

    assert [(r.number, r.error, r.status, r.truncated) for r in records] == [
        (n, "", 200, False) for n in range(3)
    ]
    for r in records:
        assert (r.tokens, r.completion_tokens, r.prompt_tokens, r.cached_tokens) == (4, 4, 256, 64)
        assert r.backend == "backend-1"
        assert r.first_token == r.token_times[0]
        assert r.sent is not None
        assert r.end is not None
        assert [r.due, r.sent, *r.token_times, r.end] == sorted(
            [r.due, r.sent, *r.token_times, r.end]
        )


def test_role_finish_and_usage_chunks_are_no_tokens() -> None:
    """Only a chunk with text in it counts, in either API."""
    text = event({"choices": [{"text": "a"}]}) + event({"choices": [{"text": ""}]})

    (record,) = send(bodies(text, b"data: [DONE]\n\n"), scenario(requests=1, api="completions"))

    assert (record.tokens, record.error) == (1, "")


def test_an_event_may_come_in_pieces() -> None:
    """A read that ends within an event, and lines that end as Windows ends them."""
    text = (token() + token("ü") + b"data: [DONE]\n\n").replace(b"\n", b"\r\n")
    pieces = [text[n : n + 7] for n in range(0, len(text), 7)]

    (record,) = send(bodies(*pieces), scenario(requests=1))

    assert (record.tokens, record.error) == (2, "")


def test_a_stream_without_done_is_truncated() -> None:
    """HTTP ended in good order, the stream did not."""
    (record,) = send(bodies(token()), scenario(requests=1))

    assert (record.error, record.truncated, record.tokens) == ("truncated", True, 1)
    assert record.detail == "no [DONE] after 1 tokens"


def test_a_connection_lost_within_a_stream_is_truncated() -> None:
    """The tokens that came before are kept."""
    (record,) = send(broken_off, scenario(requests=1))

    assert (record.error, record.truncated, record.status) == ("truncated", True, 200)
    assert record.tokens == 2


def test_a_connection_closed_before_an_answer_is_a_reset() -> None:
    """No status, no token: the request was sent and nothing came."""

    async def close(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    (record,) = send(close, scenario(requests=1))

    assert (record.error, record.status, record.truncated) == ("reset", None, False)


def test_a_port_where_nobody_listens_is_a_failure_to_connect() -> None:
    """Refused connections are recorded, one by one."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"

        records = asyncio.run(generate(plan(scenario()), url, limit=20.0))

    assert [r.error for r in records] == ["connect"] * 3


def test_an_answer_that_never_comes_is_a_timeout() -> None:
    """Each request has its own time."""
    (record,) = send(never, scenario(requests=1), timeout=0.05)

    assert (record.error, record.status) == ("timeout", None)


def test_a_server_error_has_its_kind_its_status_and_its_words() -> None:
    """A 503 is an http_5xx, a 429 an http_4xx."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "no\nmore"}, status=503)

    (record,) = send(refuse, scenario(requests=1))

    assert (record.error, record.status) == ("http_5xx", 503)
    assert record.detail == '503 {"error": "no\\nmore"}'


@pytest.mark.parametrize(
    "text",
    [
        b'data: {"choices": [\n\n',
        b"data: [1, 2]\n\n",
        b'data: {"choices": [{"delta": 3}]}\n\n',
        b'data: {"choices": [], "usage": 3}\n\n',
        b"data: \xff\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_a_chunk_that_is_none_is_malformed(text: bytes) -> None:
    """The tokens around it count; the answer does not."""
    (record,) = send(bodies(token(), text, token(), b"data: [DONE]\n\n"), scenario(requests=1))

    assert (record.error, record.truncated, record.tokens) == ("malformed", False, 2)


def test_an_error_within_a_stream_is_seen() -> None:
    """vLLM says what went wrong in an event, after the 200 has left."""
    lost = event({"error": {"message": "engine died"}})

    (record,) = send(bodies(token(), lost, b"data: [DONE]\n\n"), scenario(requests=1))

    assert record.error == "stream_error"
    assert "engine died" in record.detail


def test_a_stream_without_lines_does_not_fill_the_memory() -> None:
    """A line of megabytes is no event."""
    (record,) = send(bodies(*[b"x" * 100_000] * 20), scenario(requests=1))

    assert (record.error, record.detail) == (
        "malformed",
        "ValueError: a line of more than 1,048,576 bytes",
    )


def test_an_answer_in_one_piece_has_its_usage_and_no_token_times() -> None:
    """Without a stream nobody can know when the first token came."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [{}], "usage": usage(4)})

    (record,) = send(answer, scenario(requests=1, stream=False))

    assert (record.tokens, record.cached_tokens, record.first_token) == (4, 64, None)
    assert (record.error, record.truncated) == ("", False)


def test_an_answer_without_usage_has_unknown_tokens() -> None:
    """Unknown is not zero."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": [{}]})

    (record,) = send(answer, scenario(requests=1, stream=False))

    assert (record.tokens, record.completion_tokens, record.error) == (None, None, "")


@pytest.mark.parametrize("body", ["[]", "{", '{"choices": 1}', "[" * 100_000])
def test_an_answer_that_is_no_completion_is_malformed(body: str) -> None:
    """Status 200 alone is not success."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body)

    (record,) = send(answer, scenario(requests=1, stream=False))

    assert record.error == "malformed"


def test_an_answer_that_stalls_delays_no_other_request() -> None:
    """The first answer begins when the last request has come: a generator that waits never ends."""
    waiting = asyncio.Event()
    came = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal came
        came += 1
        if came == 20:
            waiting.set()
        await waiting.wait()
        return await whole(request)

    records = send(answer, scenario(requests=20))

    assert [r.error for r in records] == [""] * 20


def test_a_turn_is_sent_after_the_answer_before_it() -> None:
    """Three turns of one conversation never overlap, and think in between."""
    records = send(whole, scenario(sessions=Sessions(3, think=0.01)))

    for earlier, later in pairwise(records):
        assert earlier.end is not None
        assert later.sent is not None
        assert earlier.end < later.due <= later.sent


def test_nothing_is_sent_after_the_duration() -> None:
    """An endless closed-loop user stops."""
    closed = scenario(arrivals="closed", users=2, requests=None, duration=0.2)

    records = send(whole, closed)

    assert len(records) > 2
    assert max(r.due for r in records) - min(r.due for r in records) < 0.2


def test_the_limit_cuts_what_is_open() -> None:
    """A run has an end even where a server has none, and what was open is on record."""
    records = send(never, scenario(), limit=0.2)

    assert [r.error for r in records] == ["cut"] * 3


def test_requests_beyond_the_cap_are_recorded_as_unsent() -> None:
    """Requests above the cap are recorded."""
    records = send(never, scenario(), limit=0.2, cap=2)

    assert [(r.error, r.sent is None) for r in records] == [
        ("cut", False),
        ("cut", False),
        ("unsent", True),
    ]


def test_a_request_carries_its_client_and_its_id() -> None:
    """The lab door reads the address, all logs the id; the body is what OpenAI's API wants."""
    seen: list[tuple[dict[str, str], dict[str, Any]]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((dict(request.headers), await request.json()))
        return await whole(request)

    (record,) = send(answer, scenario(requests=1, clients=1), run_id="ab" * 12)

    headers, body = seen[0]
    assert headers["X-Request-ID"] == record.id == "ab" * 12 + "00000000"
    assert headers["X-Forwarded-For"] == record.client_ip == "10.0.0.1"
    assert body["stream_options"] == {"include_usage": True}
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (4, True, True)
    assert [message["role"] for message in body["messages"]] == ["user"]


def test_a_user_brings_back_the_own_cookie_and_no_other() -> None:
    """`sticky` sees many users: a cookie is given back by whom it was given to."""
    seen: list[str] = []
    both = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Cookie", ""))
        response = web.json_response({"choices": []})
        if len(seen) <= 2:
            response.set_cookie("route", f"r{len(seen)}")
        if len(seen) == 2:
            both.set()
        await both.wait()
        return response

    send(answer, scenario(arrivals="closed", users=2, requests=6, stream=False))

    assert seen[:2] == ["", ""]
    assert sorted(seen[2:]) == ["route=r1", "route=r1", "route=r2", "route=r2"]


def test_progress_ends_with_everything_done() -> None:
    """The last report is the whole run."""
    reports: list[Progress] = []

    send(whole, scenario(), on_progress=reports.append)

    last = reports[-1]
    assert (last.sent, last.done, last.failed, last.open, last.total) == (3, 3, 0, 0, 3)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8081", "ftp://127.0.0.1", "http://[", "http://"])
def test_a_url_that_is_none_is_a_usage_error(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError, match="is not a URL"):
        asyncio.run(generate(plan(scenario()), url))


async def sent_plain(handler: Handler, requests: Plan) -> list[Record]:
    """The records of plain requests, sent to a server that answers any with `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        return await generate(requests, str(server.make_url("")), limit=20.0)


def test_plain_requests_go_out_as_they_are_one_after_the_other() -> None:
    """Method, encoded path, headers and body; all over one connection, in their order."""
    seen: list[tuple[Any, ...]] = []

    async def note(request: web.Request) -> web.Response:
        peer = request.transport.get_extra_info("peername") if request.transport else None
        headers = request.headers["X-Forwarded-For"], request.headers.get("X-Key", "")
        seen.append((request.method, request.raw_path, *headers, await request.read(), peer))
        return web.json_response({"server": "a"}, headers={"X-Backend": "a"})

    requests = [
        Request("/a%2Fb?x=1", "10.0.0.1", headers={"X-Key": "k"}),
        Request("/chat", "10.0.0.2", "POST", {"Content-Type": "application/json"}, b"{}"),
    ]
    records = asyncio.run(sent_plain(note, fixed(requests)))

    assert [entry[:5] for entry in seen] == [
        ("GET", "/a%2Fb?x=1", "10.0.0.1", "k", b""),
        ("POST", "/chat", "10.0.0.2", "", b"{}"),
    ]
    assert len({entry[5] for entry in seen}) == 1
    assert [(r.method, r.status, r.backend, r.error) for r in records] == [
        ("GET", 200, "a", ""),
        ("POST", 200, "a", ""),
    ]


def test_a_plain_answer_that_is_no_json_though_it_says_so_is_malformed() -> None:
    """A body of any other type is taken as it is."""

    async def broken(request: web.Request) -> web.Response:
        kind = "application/json" if request.path == "/json" else "text/plain"
        return web.Response(text='{"server": ', content_type=kind)

    records = asyncio.run(sent_plain(broken, fixed([Request("/json"), Request("/text")])))

    assert [record.error for record in records] == ["malformed", ""]


def test_the_request_that_is_next_goes_to_whoever_is_free() -> None:
    """Two at a time: while the first is answered, the other one sends all the rest."""
    others = asyncio.Event()
    answered: list[str] = []

    async def one_waits(request: web.Request) -> web.Response:
        answered.append(request.path)
        if request.path == "/0":
            await others.wait()
        if request.path == "/9":
            others.set()
        return web.Response()

    records = asyncio.run(
        sent_plain(one_waits, fixed([Request(f"/{n}") for n in range(10)], concurrency=2))
    )

    assert sorted(answered) == [f"/{n}" for n in range(10)]
    assert [record.status for record in records] == [200] * 10


def test_visitors_have_cookies_of_their_own() -> None:
    """Each brings back what it was given, whichever connection it is on."""
    carried: list[tuple[str, str]] = []

    async def welcome(request: web.Request) -> web.Response:
        carried.append((request.path, request.headers.get("Cookie", "")))
        answer = web.Response()
        if not request.cookies:
            answer.set_cookie("who", request.path[1:])
        return answer

    paths = ["/ann", "/bob", "/ann", "/bob"]
    plain = fixed([Request(path) for path in paths], visitors=["ann", "bob", "ann", "bob"])
    asyncio.run(sent_plain(welcome, plain))

    assert carried == [("/ann", ""), ("/bob", ""), ("/ann", "who=ann"), ("/bob", "who=bob")]


def test_an_id_of_the_request_s_own_is_kept() -> None:
    """A key may be the request id itself."""

    async def fine(_: web.Request) -> web.Response:
        return web.Response()

    own = Request("/", headers={"x-request-id": "ab" * 16})

    assert [record.id for record in asyncio.run(sent_plain(fine, fixed([own])))] == ["ab" * 16]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_the_records_of_what_had_ended(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """What was open is cut; the interruption is raised as itself, and asyncio logs nothing."""
    kept: list[Record] = []

    async def stopping(request: web.Request) -> web.StreamResponse:
        if len(kept) < 2:
            return await whole(request)
        signal.raise_signal(number)
        return await never(request)

    async def stopped() -> None:
        await cancelled_by_sigterm(
            sent(stopping, scenario(requests=50, rate=50.0), records_so_far=kept)
        )

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with asyncio.Runner() as runner, pytest.raises(INTERRUPTIONS) as stop:
            runner.run(stopped())
    finally:
        signal.signal(signal.SIGTERM, before)

    assert stop.type is {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}[number]
    assert [record.error for record in kept[:2]] == ["", ""]
    assert {record.error for record in kept[2:]} == {"cut"}
    assert not caplog.records


def test_a_record_has_the_key_of_the_request_as_it_was_sent() -> None:
    """With the headers that the HTTP library adds; one character for each byte."""

    def key_of(request: Request) -> bytes:
        assert b"max_tokens" in request.body
        return request.uri.encode() + request.headers["User-Agent"][:6].encode() + b"\xc3"

    records = send(bodies(token(), b"data: [DONE]\n\n"), scenario(), key_of=key_of)

    assert [record.key for record in records] == ["/v1/chat/completionsPython\xc3"] * 3


def test_a_key_that_cannot_be_computed_is_none() -> None:
    """The request is sent all the same."""

    def key_of(_request: Request) -> bytes:
        raise UsageError("unknown")

    (record,) = send(bodies(b"data: [DONE]\n\n"), scenario(requests=1), key_of=key_of)

    assert (record.key, record.status) == (None, 200)
