"""uvicorn's HTTP protocol with a fast path for the article's API, and its errors in JSON."""

import asyncio
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from . import article
from .journal import Record
from .wire import RefusedError, Reply

if TYPE_CHECKING:
    from .app import App

_GRACE = 0.5  # seconds to read what arrived while the process was frozen
_LINGER = 0.5  # seconds that an idle connection stays open while the server stops
_HEAD_LIMIT = 65_536
_POSTS = {path.encode(): action for path, action in article.ACTIONS.items()}
# a request with one of these headers is not a simple one
_MARKS = frozenset(
    {
        *(b"transfer-encoding", b"expect", b"upgrade", b"connection"),
        *(b"content-encoding", b"x-lab-duration"),
    }
)
# a well-formed request line: if the parser refused it, the method may be unknown
_REQUEST_LINE = re.compile(rb"([A-Z]+) (/\S*) HTTP/1\.1\r\n")
_REQUEST_ID = re.compile(rb"^x-request-id:[ \t]*([!-~]+)", re.IGNORECASE | re.MULTILINE)
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"})
_OTHER_PATHS = (b"/v1/", b"/health", b"/metrics", b"/openapi.json")


class Protocol(HttpToolsProtocol):
    """A connection of a server whose application is an App.

    A healthy backend answers the article's simple requests where they are parsed, without a
    task or ASGI messages, which is several times as fast. All other requests are handled by
    uvicorn; the responses are the same.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lab = cast("App", self.app).lab
        self._name = self._lab.settings.name.encode()
        self._piece = b""
        self._in_head = False
        self._head_bytes = 0
        self._shutting_down = False
        self._cycles: list[RequestResponseCycle] = []
        # the simple request that is coming in, and its body so far
        self._record: Record | None = None
        self._body = b""
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        # runs while a request has arrived in part
        self._arrival_timer: asyncio.TimerHandle | None = None
        self._is_partial = False

    def data_received(self, data: bytes) -> None:
        """Parse received bytes; refuse a head over the limit, and a request that is too slow."""
        self._piece = data
        super().data_received(data)
        if self._is_partial and not self._arrival_timer:
            seconds = self._lab.settings.arrival
            self._arrival_timer = self.loop.call_later(seconds, self._on_arrival_timer)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > _HEAD_LIMIT:
            self.send_400_response("request head too large")

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify every request of this connection that the client disconnected."""
        if self._record:
            self._end(self._record, 499, 0, "client_gone")
        for cycle in self._open_cycles():
            cycle.disconnected = True
            cycle.message_event.set()
        self._stop_idle_timer()
        self._stop_arrival_timer()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection once all requests that began on it are answered.

        A request may already be on its way on an idle connection, so that one stays open for
        `_LINGER` seconds. New connections are refused.
        """
        self._shutting_down = True
        self.loop.call_later(_LINGER, self._shut_down)

    def _shut_down(self) -> None:
        if not self._record:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed, unless an earlier one is still unanswered."""
        line = _REQUEST_LINE.search(self._piece)
        if line and line[1] not in _METHODS:
            self._refuse(RefusedError(405, "unknown method", {"Allow": article.ALLOWED}))
        else:
            self._refuse(RefusedError(400, msg))

    def _refuse(self, error: RefusedError) -> None:
        """Answer the request that is arriving, unless an earlier one is unanswered, and close."""
        open_cycles = self._open_cycles()
        if not any(cycle.response_started or not cycle.more_body for cycle in open_cycles):
            reply = article.refuse(self._lab.settings.name, error)
            self._write(reply, b"connection: close\r\n")
            if not open_cycles:
                record, self._record = self._record or self._unparsed(), None
                self._end(record, reply.status, len(reply.body), "ok")
        self.transport.close()

    def _on_arrival_timer(self) -> None:
        self._arrival_timer = self.loop.call_later(_GRACE, self._refuse_late)

    def _refuse_late(self) -> None:
        if not (self._in_head or self._record or self._open_cycles()):
            self.transport.close()  # answered before its body was read
            return
        seconds = self._lab.settings.arrival
        self._refuse(RefusedError(408, f"the request did not arrive in full within {seconds} s"))

    def _stop_arrival_timer(self) -> None:
        if self._arrival_timer:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def on_message_begin(self) -> None:
        """Reset the fields of the request head."""
        self._stop_arrival_timer()
        self._is_partial = True
        self._in_head = True
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """Answer the article's simple requests here; hand all others to uvicorn."""
        self._in_head = False
        method, fields = self.parser.get_method(), dict(self.headers)
        if self._is_simple(method, fields):
            self._record = self._new_record(method.decode(), self.url.decode(), fields)
            self._body = b""
            return
        self._stop_idle_timer()
        # uvicorn's own begins with an empty head
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        cast("dict[str, Any]", self.scope)["lab.transport"] = self.transport
        super().on_headers_complete()
        cast("dict[str, Any]", self.scope)["lab.cycle"] = self.cycle
        self._cycles = [*self._open_cycles(), self.cycle]

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        if self._record:
            self._body += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer a simple request; pass on any other with its arrival time."""
        self._is_partial = False
        self._stop_arrival_timer()
        if self._record:
            self._answer(self._record)
        else:
            cast("dict[str, Any]", self.cycle.scope)["lab.arrived"] = time.perf_counter()
            super().on_message_complete()

    def _is_simple(self, method: bytes, fields: Mapping[bytes, bytes]) -> bool:
        if not self._lab.switch.healthy or self.flow.write_paused or self._shutting_down:
            return False
        if self.cycle and not self.cycle.response_complete:
            return False
        if not _MARKS.isdisjoint(fields) or self.parser.get_http_version() != "1.1":
            return False
        length = fields.get(b"content-length")
        if self.url in _POSTS and method == b"POST":
            limit = self._lab.settings.body_limit
            return length is not None and length.isdigit() and int(length) <= limit
        if method != b"GET" or length is not None:
            return False
        plain = self.url.isascii() and b"%" not in self.url and self.url.startswith(b"/")
        return plain and not self.url.startswith(_OTHER_PATHS)

    def _answer(self, record: Record) -> None:
        name = self._lab.settings.name
        try:
            action = _POSTS[self.url] if record.method == "POST" else None
            reply = action(name, self._body) if action else article.greet(name)
        except RefusedError as error:
            reply = article.refuse(name, error)
        self._record = None
        self._write(reply)
        self._end(record, reply.status, len(reply.body), "ok")
        if self._shutting_down:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if not self._idle_timer:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        """Close the connection if it was idle for the keep-alive time, else look again later.

        One timer serves any number of simple requests: to start one for each would cost more than
        to parse them.
        """
        self._idle_timer = None
        if self._record:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._on_idle_timer)
        else:
            self.timeout_keep_alive_handler()

    def _stop_idle_timer(self) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _write(self, reply: Reply, extra_lines: bytes = b"") -> None:
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-backend: %b\r\n%b\r\n"
        extra_lines += b"".join(b"%b: %b\r\n" % pair for pair in reply.headers)
        filled = head % (
            STATUS_LINE[reply.status],
            reply.content_type,
            len(reply.body),
            self._name,
            extra_lines,
        )
        self.transport.write(filled + reply.body)

    def _unparsed(self) -> Record:
        """The record of a request that the parser refused, from what was received of its head."""
        line, named = _REQUEST_LINE.search(self._piece), _REQUEST_ID.search(self._piece)
        method, path = (word.decode("latin-1") for word in line.groups()) if line else ("", "")
        return self._new_record(method, path, {b"x-request-id": named[1]} if named else {})

    def _new_record(self, method: str, path: str, fields: Mapping[bytes, bytes]) -> Record:
        request_id = fields.get(b"x-request-id", b"").decode("latin-1")
        return Record(request_id, method, path, time.perf_counter())

    def _end(self, record: Record, status: int, sent: int, fate: str) -> None:
        record.status, record.bytes, record.fate = status, sent, fate
        self._lab.journal.add(record)

    def _open_cycles(self) -> list[RequestResponseCycle]:
        return [cycle for cycle in self._cycles if not cycle.response_complete]
