"""Faults of a backend, set while it runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .wire import (
    ClientGoneError,
    RefusedError,
    Reply,
    close,
    header,
    pause,
    read_body,
    send_reply,
    set_header,
    unless_gone,
)

if TYPE_CHECKING:
    from .journal import Record

# seconds that a response without duration counts as, for the factor of `slow`
_INSTANT = 0.010


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The faults of a backend; by default there are none.

    A share `error_rate` of requests is answered with `error_status`. `hang` holds requests until
    healed. `slow` multiplies every duration; an instant response counts as 10 ms. A share
    `drop_rate` of responses is cut off: a stream after `drop_after_tokens` tokens, any other
    response in the middle; 0 tokens means before the first byte. `malformed_json` removes the last
    character of every JSON text. `seed` decides which requests the shares affect.
    """

    error_rate: float = 0.0
    error_status: int = 500
    hang: bool = False
    slow: float = 1.0
    drop_rate: float = 0.0
    drop_after_tokens: int = 1
    malformed_json: bool = False
    refuse_health: bool = False
    seed: int = 0


HEALTHY = Behaviour()

_RANGES: Mapping[str, tuple[float, float]] = {
    "error_rate": (0.0, 1.0),
    "error_status": (400, 599),
    "slow": (1.0, 1000.0),
    "drop_rate": (0.0, 1.0),
    "drop_after_tokens": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
}


def parse(content: object) -> Behaviour:
    """Read a behaviour from JSON; fields that are missing mean no fault. Raises RefusedError (400).

    `drop_after_tokens` alone applies to every response: `drop_rate` is then 1.
    """
    if not isinstance(content, dict):
        raise RefusedError(400, "a behaviour must be a JSON object")
    known = {field.name: field.type for field in fields(Behaviour)}
    for name in content:
        if name not in known:
            raise RefusedError(400, f'unknown behaviour "{name}": one of {", ".join(known)}')
    values = {name: _value(name, content[name]) for name in content}
    if "drop_after_tokens" in values:
        values.setdefault("drop_rate", 1.0)
    return Behaviour(**values)


def _value(name: str, value: object) -> Any:
    default = getattr(HEALTHY, name)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise RefusedError(400, f'"{name}" must be true or false')
        return value
    low, high = _RANGES[name]
    kinds = int if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise RefusedError(400, f'"{name}" must be {kind} from {low:g} to {high:g}')
    return type(default)(value)


class Switch:
    """The current behaviour, and the random generator for its shares."""

    def __init__(self) -> None:
        self.behaviour = HEALTHY
        self.healthy = True
        self._rng = random.Random(HEALTHY.seed)
        self._released = asyncio.Event()

    def set(self, behaviour: Behaviour) -> None:
        """Apply a behaviour to later requests; release held requests unless the new one hangs."""
        self.behaviour = behaviour
        self.healthy = behaviour == HEALTHY
        self._rng = random.Random(behaviour.seed)
        if not behaviour.hang:
            self._released.set()
            self._released = asyncio.Event()

    async def released(self) -> None:
        """Wait until the backend no longer hangs."""
        if self.behaviour.hang:
            await self._released.wait()

    def hits(self, rate: float) -> bool:
        """Draw whether a fault of this rate affects a request."""
        return self._rng.random() < rate


class Faults:
    """ASGI middleware that applies the faults of its switch.

    `exempt` selects requests that get no fault; `error` makes the error response; `instant` tells
    whether a response takes no time without a fault.
    """

    def __init__(
        self,
        app: ASGIApp,
        switch: Switch,
        limit: int,
        exempt: Callable[[Scope], bool],
        error: Callable[[Scope, int], Reply],
        instant: Callable[[Scope], bool],
    ) -> None:
        self._app = app
        self._switch = switch
        self._limit = limit
        self._exempt = exempt
        self._error = error
        self._instant = instant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request with the current faults."""
        behaviour = self._switch.behaviour
        scope["lab.unaltered"] = self._switch.healthy
        if self._switch.healthy or self._exempt(scope):
            await self._app(scope, receive, send)
            return
        fails = self._switch.hits(behaviour.error_rate)
        drops = self._switch.hits(behaviour.drop_rate)
        if behaviour.hang:
            receive = await _hold(scope, receive, self._limit, self._switch.released())
        if behaviour.slow > 1.0 and self._instant(scope):
            extra = pause((behaviour.slow - 1.0) * _INSTANT)
            receive = await _hold(scope, receive, self._limit, extra)
        if drops:
            send = _Dropper(scope, send, behaviour.drop_after_tokens)
        if behaviour.malformed_json:
            send = _JsonTruncator(send)
        if fails:
            await send_reply(send, self._error(scope, behaviour.error_status))
        else:
            await self._app(scope, receive, send)


async def _hold(scope: Scope, receive: Receive, limit: int, until: Awaitable[object]) -> Receive:
    """Read the request, wait, and return a `receive` that replays it.

    A disconnect is noticed only after the body was read. A refused body is not read further.
    Raises ClientGoneError.
    """
    wait = asyncio.ensure_future(until)
    try:
        body = await read_body(scope, receive, limit) if _has_body(scope) else b""
        if not await unless_gone(receive, wait):
            raise ClientGoneError
    except RefusedError as error:
        return _ReplayFirst(receive, error)
    finally:
        wait.cancel()
    return _ReplayFirst(receive, {"type": "http.request", "body": body, "more_body": False})


def _has_body(scope: Scope) -> bool:
    length = header(scope, b"content-length")
    return length not in {None, b"0"} or header(scope, b"transfer-encoding") is not None


class _ReplayFirst:
    """A `receive` that first replays one message, or raises one error."""

    def __init__(self, receive: Receive, first: Message | RefusedError) -> None:
        self._receive = receive
        self._first: Message | RefusedError | None = first

    async def __call__(self) -> Message:
        first, self._first = self._first, None
        if isinstance(first, RefusedError):
            raise first
        return await self._receive() if first is None else first


class _Dropper:
    """A `send` that closes the connection in the middle of the response."""

    def __init__(self, scope: Scope, send: Send, after_tokens: int) -> None:
        self._scope = scope
        self._send = send
        self._after = after_tokens
        self._record: Record = scope["lab.record"]

    async def __call__(self, message: Message) -> None:
        if self._record.fate == "dropped":
            return
        if self._after == 0:
            self._drop()
        elif message["type"] != "http.response.body":
            await self._send(message)
        elif self._record.llm and self._record.llm.stream:
            await self._stream(message)
        else:
            half = message.get("body", b"")[: len(message.get("body", b"")) // 2]
            await self._send({"type": "http.response.body", "body": half, "more_body": True})
            self._drop()

    async def _stream(self, message: Message) -> None:
        figures = self._record.llm
        if figures and figures.tokens_sent >= self._after:
            self._drop()
        else:
            await self._send(message)

    def _drop(self) -> None:
        self._record.fate = "dropped"
        close(self._scope)


class _JsonTruncator:
    """A `send` that removes the last character of JSON and adjusts Content-Length."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: MutableMapping[str, Any] = {}
        self._kind = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._kind = dict(message["headers"]).get(b"content-type", b"")
            self._start = message
            if self._kind != b"application/json":
                await self._send(message)
            return
        body = message.get("body", b"")
        if self._kind == b"application/json":
            body = body[:-1]
            set_header(self._start, b"content-length", b"%d" % len(body))
            await self._send(self._start)
        elif self._kind.startswith(b"text/event-stream"):
            body = body.replace(b"}\n\n", b"\n\n")
        await self._send({**message, "body": body})
