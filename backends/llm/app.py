"""One backend: both APIs, health and metrics, wrapped by its journal and its faults."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import article
from .behaviour import Faults, Switch
from .engine import Engine
from .journal import Journal, Record
from .metrics import Metrics
from .openai import openapi
from .openai.api import TOKENIZE, OpenAi
from .openai.api_error import ApiError
from .runner import Runner
from .settings import Settings
from .wire import (
    ClientGoneError,
    RefusedError,
    Reply,
    closing,
    header,
    json_bytes,
    pause,
    send_reply,
    unless_gone,
    until_gone,
)

_OPERATIONS = frozenset({"/health", "/metrics", "/openapi.json"})
# vLLM's defaults: a page from anywhere may ask, without cookies
_CORS = Middleware(CORSMiddleware, allow_origins=("*",), allow_methods=("*",), allow_headers=("*",))
_CLIENT_GONE = 499  # nginx's own status for it


@dataclass(frozen=True, slots=True)
class Backend:
    """The state of one backend process: settings, engine, faults, metrics, journal."""

    settings: Settings
    runner: Runner
    switch: Switch
    metrics: Metrics
    journal: Journal


def backend(settings: Settings, write: Callable[[str], object]) -> Backend:
    """Create a backend that writes its journal by `write`, in batches of lines."""

    def soon(flush: Callable[[], None]) -> object:
        return asyncio.get_running_loop().call_later(settings.journal_pause, flush)

    metrics = Metrics(settings.model)
    engine = Engine(settings.profile, seed=settings.seed)
    return Backend(
        settings,
        Runner(engine, settings.time_scale, observe=metrics.observe_step),
        Switch(),
        metrics,
        Journal(settings.name, write, soon),
    )


class App:
    """The ASGI application: journals each request and adds the backend's name to each response."""

    def __init__(self, lab: Backend) -> None:
        self.lab = lab
        self._inner = Faults(
            _routed(lab),
            lab.switch,
            lab.settings.body_limit,
            exempt=lambda scope: scope["path"] in _OPERATIONS,
            error=lambda scope, status: _problem(
                lab, scope, RefusedError(status, "this backend is set to fail (lab fault)")
            ),
            instant=self._is_instant,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and write its journal line."""
        record = scope["lab.record"] = _record(scope)
        recording_send = _RecordingSend(scope, send, record, self.lab.settings.name)
        try:
            await self._inner(scope, receive, recording_send)
            if closing(scope) and not recording_send.complete:
                # the server must see a closed connection, or it expects the rest of the response
                await until_gone(receive)
        except ClientGoneError:
            record.fate = record.fate or "client_gone"
        except BaseException:
            record.fate = record.fate or "failed"
            raise
        finally:
            record.fate = record.fate or ("ok" if recording_send.complete else "client_gone")
            _complete_record(record)
            # a probe that did not come through nginx is not a client's request
            if record.id or scope["path"] not in _OPERATIONS:
                self.lab.journal.add(record)

    def _is_instant(self, scope: Scope) -> bool:
        if _is_openai(scope):
            return self.lab.runner.engine.profile.name == "instant"
        return header(scope, b"x-lab-duration") is None


def _record(scope: Scope) -> Record:
    arrived = scope.get("lab.arrived") or time.perf_counter()
    query = scope["query_string"]
    target = scope.get("raw_path") or scope["path"].encode()
    return Record(
        id=(header(scope, b"x-request-id") or b"").decode("latin-1"),
        method=scope["method"],
        path=(target + b"?" + query if query else target).decode("latin-1"),
        arrived=arrived,
    )


def _complete_record(record: Record) -> None:
    if record.fate == "client_gone":
        record.status = record.status or _CLIENT_GONE
    if record.llm and not record.llm.stream:
        record.llm.tokens_sent = record.llm.completion_tokens if record.fate == "ok" else 0


class _RecordingSend:
    """A `send` that records status and bytes, and sends nothing on a closed connection."""

    def __init__(self, scope: Scope, send: Send, record: Record, name: str) -> None:
        self.complete = False
        self._scope = scope
        self._send = send
        self._record = record
        self._name = name.encode()

    async def __call__(self, message: Message) -> None:
        if closing(self._scope):
            return
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-backend", self._name)]
        elif self._scope["method"] != "HEAD":
            self._record.bytes += len(message.get("body", b""))
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True


def _routed(lab: Backend) -> ASGIApp:
    operations = [
        Route("/health", _health(lab)),
        Route("/metrics", _metrics(lab)),
        Route("/openapi.json", _openapi(lab)),
    ]
    app = Starlette(
        routes=[*operations, *OpenAi(lab.settings, lab.runner, lab.metrics).routes()],
        exception_handlers=_handlers(lab),
        middleware=[_CORS],
    )
    app.router.redirect_slashes = False
    # paths without a route belong to the article's API, which answers any path
    app.router.default = _article(lab)
    return app


def _article(lab: Backend) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/v1/"):
            message = f"Invalid URL ({scope['method']} {scope['path']})"
            raise ApiError(404, message, code="unknown_url")
        seconds = article.duration(scope) * lab.switch.behaviour.slow
        reply = await article.answer(lab.settings.name, scope, receive, lab.settings.body_limit)
        if seconds and not await unless_gone(receive, pause(seconds)):
            raise ClientGoneError
        await send_reply(send, reply)

    return answer


_Endpoint = Callable[[Request], Awaitable[Response]]


def _health(lab: Backend) -> _Endpoint:
    async def health(_request: Request) -> Response:
        if lab.switch.behaviour.refuse_health:
            return _response(Reply(503, json_bytes({"status": "refused"})))
        return _response(Reply(200, json_bytes({"status": "ok"})))

    return health


def _metrics(lab: Backend) -> _Endpoint:
    async def metrics(_request: Request) -> Response:
        kind = b"text/plain; version=0.0.4; charset=utf-8"
        return _response(Reply(200, lab.metrics.text(lab.runner.engine).encode(), kind))

    return metrics


def _openapi(lab: Backend) -> _Endpoint:
    document = json_bytes(openapi.describe(lab.settings))

    async def describe(_request: Request) -> Response:
        return _response(Reply(200, document))

    return describe


_Handler = Callable[[Request, Exception], Response]


def _handlers(lab: Backend) -> dict[type[Exception] | int, _Handler]:
    def on_api_error(_request: Request, error: Exception) -> Response:
        if not isinstance(error, ApiError):
            raise error
        return _response(Reply(error.status, json_bytes(error.content()), headers=_pairs(error)))

    def on_refused(request: Request, error: Exception) -> Response:
        if not isinstance(error, RefusedError):
            raise error
        return _response(_problem(lab, request.scope, error))

    def on_http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        refused = RefusedError(error.status_code, error.detail, dict(error.headers or {}))
        return _response(_problem(lab, request.scope, refused))

    def on_gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    def on_crash(request: Request, _error: Exception) -> Response:
        return _response(_problem(lab, request.scope, RefusedError(500, "internal error")))

    return {
        ApiError: on_api_error,
        RefusedError: on_refused,
        HTTPException: on_http,
        ClientGoneError: on_gone,
        Exception: on_crash,
    }


def _problem(lab: Backend, scope: Scope, error: RefusedError) -> Reply:
    """Format an error as the requested API does."""
    if not _is_openai(scope):
        return article.refuse(lab.settings.name, error)
    content = ApiError(error.status, error.message).content()
    return Reply(error.status, json_bytes(content), headers=_pairs(error))


def _is_openai(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith("/v1/") or path == TOKENIZE


def _pairs(error: RefusedError | ApiError) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((key.encode(), value.encode()) for key, value in error.headers.items())


def _response(reply: Reply) -> Response:
    headers = {key.decode(): value.decode() for key, value in reply.headers}
    headers["Content-Type"] = reply.content_type.decode()
    return Response(reply.body, reply.status, headers)
