"""The article's clients of the lab: a synchronous one on requests, an asynchronous one on aiohttp.

    with SyncClient("http://127.0.0.1:8080") as client:
        print(client.chat("Hello")["response"])

    async with AsyncClient("http://127.0.0.1:8080") as client:
        async for piece in client.chat_stream("Hello"):
            print(piece, end="")

A failure raises CallError, which names the URL, the status and the server's own message. A call
times out after `timeout` seconds without data; a response that is not streamed must be complete by
then.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import requests
import urllib3

from ..errors import LabError, UsageError
from .events import MODEL, EventStream, text_of

TIMEOUT = 60.0
_CHUNK = 1 << 16
_LIBRARY_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    aiohttp.ClientError,
    OSError,  # TimeoutError is one
)
_NO_CONNECTION = re.compile("NewConnectionError|NameResolutionError|Cannot connect to host")


class CallError(LabError):
    """A call that failed; `kind` says how in a word or two: `refused`, `timeout`, `status 502`."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Call:
    """One POST to the lab."""

    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The lab's answer, and the server that sent it."""

    body: dict[str, Any]
    server: str


class Piece(str):
    """A piece of a streamed answer's text, and the server that sent it."""

    __slots__ = ("server",)
    server: str

    def __new__(cls, text: str, server: str) -> Self:
        """Make a piece of text, and note its server."""
        piece = super().__new__(cls, text)
        piece.server = server
        return piece


def chat_call(message: str) -> Call:
    """The article's chat."""
    return _json_call("/chat", {"message": message})


def completions_call(text: str) -> Call:
    """The article's completion of a text."""
    # bytes of a command line that are not UTF-8 are sent unchanged
    return Call("/completions", "text/plain; charset=utf-8", text.encode(errors="surrogateescape"))


def stream_call(message: str, model: str = MODEL, max_tokens: int | None = None) -> Call:
    """OpenAI's chat completion, streamed."""
    limit = {} if max_tokens is None else {"max_tokens": max_tokens}
    messages = [{"role": "user", "content": message}]
    return _json_call(
        "/v1/chat/completions", {"model": model, "messages": messages, "stream": True, **limit}
    )


class SyncClient:
    """A client on `requests`: one connection, kept alive. Close it, or use it in a `with`."""

    def __init__(self, base_url: str, timeout: float = TIMEOUT) -> None:
        self._base = _checked(base_url)
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is not part of the lab

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def chat(self, message: str) -> dict[str, Any]:
        """Send a chat message; the answer has `original`, `response`, `server`, `timestamp`."""
        return self.send(chat_call(message)).body

    def completions(self, text: str) -> dict[str, Any]:
        """Request completions; the answer has `completions`, `server`, `timestamp`."""
        return self.send(completions_call(text)).body

    def send(self, call: Call) -> Answer:
        """Send any call and return its JSON answer."""
        url = self._base + call.path
        with _call_errors(url, self._timeout), self._posted(url, call) as response:
            return _answer(url, response.status_code, response.headers, self._read_body(response))

    def chat_stream(
        self, message: str, model: str = MODEL, max_tokens: int | None = None
    ) -> Iterator[Piece]:
        """Yield an answer piece by piece, as the server generates it."""
        call = stream_call(message, model, max_tokens)
        url = self._base + call.path
        events = _Events(url)
        with _call_errors(url, self._timeout, events), self._posted(url, call) as response:
            if not _is_success(response.status_code):
                raise _refusal(url, response.status_code, self._read_body(response))
            events.begin(response.headers)
            for chunk in _chunks(response):
                yield from events.pieces(chunk)
        yield from events.end()

    @contextmanager
    def _posted(self, url: str, call: Call) -> Iterator[requests.Response]:
        with self._session.post(
            url,
            data=call.body,
            headers={"Content-Type": call.content_type},
            timeout=self._timeout,
            allow_redirects=False,
            stream=True,
        ) as response:
            yield response

    def _read_body(self, response: requests.Response) -> bytes:
        """Read a body; the timeout is for all of it."""
        deadline = monotonic() + self._timeout
        body = b""
        for chunk in _chunks(response):
            body += chunk
            if monotonic() > deadline:
                raise TimeoutError
        return body


class AsyncClient:
    """A client on `aiohttp`: many calls at once.

    In an `async with` all calls share one session and its connections; outside of it each call
    opens a separate session, as the article's client does.
    """

    def __init__(self, base_url: str, timeout: float = TIMEOUT) -> None:
        self._base = _checked(base_url)
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = _session()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the shared session, if there is one."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def chat(self, message: str) -> dict[str, Any]:
        """Send a chat message; the answer has `original`, `response`, `server`, `timestamp`."""
        return (await self.send(chat_call(message))).body

    async def completions(self, text: str) -> dict[str, Any]:
        """Request completions; the answer has `completions`, `server`, `timestamp`."""
        return (await self.send(completions_call(text))).body

    async def send(self, call: Call) -> Answer:
        """Send any call and return its JSON answer."""
        url = self._base + call.path
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        with _call_errors(url, self._timeout):
            async with self._posted(url, call, timeout) as response:
                body = await response.read()
                return _answer(url, response.status, response.headers, body)

    async def chat_stream(
        self, message: str, model: str = MODEL, max_tokens: int | None = None
    ) -> AsyncIterator[Piece]:
        """Yield an answer piece by piece, as the server generates it."""
        call = stream_call(message, model, max_tokens)
        url = self._base + call.path
        events = _Events(url)
        silence = aiohttp.ClientTimeout(
            total=None, sock_connect=self._timeout, sock_read=self._timeout
        )
        with _call_errors(url, self._timeout, events):
            async with self._posted(url, call, silence) as response:
                if not _is_success(response.status):
                    raise _refusal(url, response.status, await response.read())
                events.begin(response.headers)
                async for chunk in response.content.iter_any():
                    for piece in events.pieces(chunk):
                        yield piece
        for piece in events.end():
            yield piece

    @asynccontextmanager
    async def _posted(
        self, url: str, call: Call, timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with (
            self._connected() as session,
            session.post(
                url,
                data=call.body,
                headers={"Content-Type": call.content_type},
                timeout=timeout,
                allow_redirects=False,
            ) as response,
        ):
            yield response

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._session is not None:
            yield self._session
            return
        async with _session() as session:
            yield session


class _Events:
    """The server-sent events of one stream, read as they arrive."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._server = ""
        self._stream = EventStream()
        self.count = 0
        self.begun = False

    @property
    def done(self) -> bool:
        """Whether [DONE] was received, after which nothing can be lost."""
        return self._stream.done

    def begin(self, headers: Mapping[str, str]) -> None:
        """Record that the response has begun, and its server."""
        self.begun = True
        self._server = headers.get("X-Backend", "")

    def pieces(self, chunk: bytes) -> Iterator[Piece]:
        """Yield the text of each event that is complete with this chunk."""
        try:
            for payload in self._stream.feed(chunk):
                if text := self._text(payload):
                    self.count += 1
                    yield Piece(text, self._server)
        except ValueError:
            raise self._broken("sent a line without end") from None

    def end(self) -> Iterator[Piece]:
        """Yield the text of the last line; CallError if the stream ended without [DONE]."""
        yield from self.pieces(b"\n")
        if not self.done:
            raise self._broken("ended without [DONE]")

    def broken_off(self, reason: str) -> CallError:
        """The error of a stream that was cut off."""
        return self._broken(f"broke off ({reason})")

    def _text(self, payload: bytes) -> str:
        event = _json(payload)
        if event is None:
            raise self._broken(f"sent an event that is not JSON: {payload[:80]!r}")
        if "error" in event:
            raise self._broken(f"broke off ({_server_message(payload)})")
        try:
            return text_of(event)
        except (AttributeError, TypeError):
            return ""

    def _broken(self, what: str) -> CallError:
        pieces = "1 piece" if self.count == 1 else f"{self.count} pieces"
        return CallError("truncated", f"stream from {self._url} {what} after {pieces}")


def _json_call(path: str, value: object) -> Call:
    return Call(path, "application/json", json.dumps(value).encode())


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f'not the URL of a lab: "{base_url}"', "http://127.0.0.1:8080")
    return base_url.rstrip("/")


def _session() -> aiohttp.ClientSession:
    # no limit: the caller decides how many calls run at once
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield a body as it arrives; requests' own iterators wait until a chunk is full."""
    while chunk := response.raw.read1(_CHUNK, decode_content=True):
        yield chunk


def _answer(url: str, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    if not _is_success(status):
        raise _refusal(url, status, body)
    answer = _json(body)
    if answer is None:
        raise CallError(
            "not JSON",
            f"{url} answered with something other than a JSON object: {_server_message(body)}",
        )
    return Answer(answer, str(answer.get("server") or headers.get("X-Backend", "")))


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _refusal(url: str, status: int, body: bytes) -> CallError:
    return CallError(f"status {status}", f"{url} answered {status}: {_server_message(body)}")


def _server_message(body: bytes) -> str:
    """The server's error message: the article's and OpenAI's `error`, or an HTML title."""
    error = (_json(body) or {}).get("error")
    if isinstance(error, dict):
        error = error.get("message")
    if error:
        return str(error)
    text = body[:_CHUNK].decode("utf-8", "replace")
    title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
    return " ".join((title[1] if title else text).split())[:200] or "nothing"


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def _call_errors(url: str, timeout: float, events: _Events | None = None) -> Iterator[None]:
    """Convert both libraries' errors to CallError; errors after [DONE] are ignored."""
    try:
        yield
    except _LIBRARY_ERRORS as error:
        if events is not None and events.done:
            return
        raise _failure(url, timeout, error, events) from error


def _failure(url: str, timeout: float, error: Exception, events: _Events | None) -> CallError:
    late = isinstance(error, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError)
    reason = f"silent for {timeout:g} s" if late else str(error) or type(error).__name__
    if events is not None and events.begun:
        return events.broken_off(reason)
    if late:
        return CallError("timeout", f"no answer from {url} in {timeout:g} s", "lab status")
    if _NO_CONNECTION.search(str(error)):
        return CallError("no connection", f"no connection to {url}", "lab up")
    return CallError(
        "broken off", f"{url} closed the connection before the end of its response: {reason}"
    )
