"""HTTP for both APIs: read bodies, send replies, detect a client's disconnect."""

import asyncio
import json
import time
from collections.abc import Awaitable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.types import Receive, Scope, Send

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
# writes a string as ASCII JSON, much faster than a JSONEncoder
quote = json.encoder.encode_basestring_ascii


class RefusedError(Exception):
    """A request that gets an error status, with a message and headers."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


class ClientGoneError(Exception):
    """The client disconnected before its request was complete."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_bytes(content: object) -> bytes:
    """Encode as compact JSON."""
    return _encode(content).encode()


async def send_reply(send: Send, reply: Reply) -> None:
    """Send a complete response."""
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header with this lower-case name; None without one."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the body, of a stated length or chunked.

    Raises RefusedError: 411 if neither is given, 413 for more than `limit` bytes, stated or sent,
    415 for a compressed body; ClientGoneError if the client disconnects before the end.
    """
    encoding = (header(scope, b"content-encoding") or b"identity").decode("latin-1")
    if encoding.lower() != "identity":
        raise _compressed(encoding)
    length = header(scope, b"content-length")
    if length is None and header(scope, b"transfer-encoding") is None:
        raise RefusedError(411, "a Content-Length, or chunked transfer coding, is required")
    if length is not None and not length.isdigit():
        raise RefusedError(400, "Content-Length must be a whole number")
    if length is not None and int(length) > limit:
        raise _too_large(scope, limit)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise _too_large(scope, limit)
    return bytes(body)


def _compressed(encoding: str) -> RefusedError:
    message = f'Content-Encoding "{encoding}" is not supported: send the body uncompressed'
    return RefusedError(415, message, {"Accept-Encoding": "identity"})


def _too_large(scope: Scope, limit: int) -> RefusedError:
    # after Expect: 100-continue the body may never come, so no next request can follow
    headers = {} if header(scope, b"expect") is None else {"Connection": "close"}
    return RefusedError(413, f"body over the limit of {limit} bytes", headers)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(word)


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_json(body: bytes) -> object:
    """Read strict JSON in UTF-8; raises ValueError with a sentence saying what is wrong."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"body is not UTF-8 (byte {error.start})") from None
    try:
        content: object = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"body is not JSON: {error}") from None
    except (ValueError, RecursionError):
        # NaN, Infinity, an integer of thousands of digits, or values nested too deeply
        raise ValueError("body is not JSON: a value out of range") from None
    return content


async def pause(seconds: float) -> None:
    """Sleep at least this long: the event loop's own timers may be a millisecond early."""
    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        await asyncio.sleep(left)


async def until_gone(receive: Receive) -> None:
    """Return when the client has disconnected; call this after the whole body was received."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: Awaitable[object]) -> bool:
    """Await `work` and return True; cancel it and return False if the client disconnects first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.done()
    finally:
        gone.cancel()
        task.cancel()


def closing(scope: Scope) -> bool:
    """Whether the connection is known to be closed."""
    transport = scope.get("lab.transport")
    return transport is not None and transport.is_closing()


def write_chunk(scope: Scope, data: bytes) -> bool:
    """Write a chunk of a started response directly to the transport, at a tenth of ASGI's cost.

    Writes nothing and returns False if a fault alters the response, the response is not
    chunked, the client reads too slowly, or the connection is closed.
    """
    cycle = scope.get("lab.cycle")
    if cycle is None or not scope.get("lab.unaltered"):
        return False
    transport = scope["lab.transport"]
    if not cycle.chunked_encoding or cycle.flow.write_paused or transport.is_closing():
        return False
    transport.write(b"%x\r\n%b\r\n" % (len(data), data))
    scope["lab.record"].bytes += len(data)
    return True


def close(scope: Scope) -> None:
    """Close the connection after sending all written data."""
    transport: asyncio.Transport = scope["lab.transport"]
    transport.close()


def set_header(message: MutableMapping[str, Any], name: bytes, value: bytes) -> None:
    """Replace a header in a response's start message."""
    kept = [(key, old) for key, old in message["headers"] if key.lower() != name]
    message["headers"] = [*kept, (name, value)]
