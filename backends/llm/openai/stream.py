"""Server-sent events: one event per token, sent when the token is due by the engine."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..engine import Token
from ..wire import closing, write_chunk
from .work import Work

_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Events(Protocol):
    """The events of one answer; `end`, if not empty, is sent after the event of its last token."""

    end: bytes

    def token(self, number: int) -> bytes:
        """The event of a token; the first token's includes what must precede it."""
        ...


class Shape(Protocol):
    """How an API writes the answers of a call."""

    def body(self, work: Work) -> Mapping[str, object]:
        """The body of an answer that is not streamed."""
        ...

    def events(self, work: Work) -> Sequence[Events]:
        """The events of each answer."""
        ...

    def last(self, work: Work) -> bytes:
        """The end of the stream, with the usage, which is known only then."""
        ...


class TokenStream(Response):
    """A streamed response: one event per token; under load an HTTP chunk may contain several.

    The status line is sent with the first token: so nginx's header time is the time to first
    token, and nginx can retry a queued request on another server.
    """

    def __init__(self, work: Work, shape: Shape) -> None:
        super().__init__()
        self._work = work
        self._shape = shape
        self._events = shape.events(work)
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the last token, or until the client leaves."""

        async def deliver(token: Token) -> None:
            await self._deliver(token, scope, send)

        def write(token: Token) -> bool:
            event = self._events[token.generation.request.tag].token(token.number)
            if not write_chunk(scope, event):
                return False
            self._work.figures.tokens_sent += 1
            return True

        if not await self._work.run(receive, deliver, write):
            return
        await send({"type": "http.response.body", "body": self._shape.last(self._work)})

    async def _deliver(self, token: Token, scope: Scope, send: Send) -> None:
        events = self._events[token.generation.request.tag]
        if not self._started:
            self._started = True
            start = {"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM}
            await send(start)
        await _event(send, events.token(token.number))
        if not closing(scope):
            self._work.figures.tokens_sent += 1
        if token.last and events.end:
            await _event(send, events.end)


async def _event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
