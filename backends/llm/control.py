"""The behaviour port: sets a backend's faults and speed while it runs."""

from dataclasses import asdict
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from .app import Backend
from .behaviour import HEALTHY, Behaviour, parse
from .profiles import MOST, PROFILES, Limits, Profile, changed_limits
from .wire import RefusedError, parse_json, read_body

_LIMIT = 64 * 1024


def control(lab: Backend) -> ASGIApp:
    """The application of the behaviour port: /behaviour, /profile and /cache."""
    panel = _Panel(lab)
    routes = [
        Route("/behaviour", panel.behaviour, methods=["GET", "PUT", "DELETE"]),
        Route("/profile", panel.profile, methods=["GET", "PUT"]),
        Route("/cache", panel.cache, methods=["GET", "DELETE"]),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={RefusedError: panel.on_refused, HTTPException: panel.on_http},
    )


class _Panel:
    def __init__(self, lab: Backend) -> None:
        self._lab = lab

    async def behaviour(self, request: Request) -> Response:
        if request.method == "PUT":
            self._behave(parse(await _content(request)))
        elif request.method == "DELETE":
            self._behave(HEALTHY)
        return JSONResponse(asdict(self._lab.switch.behaviour))

    async def profile(self, request: Request) -> Response:
        runner = self._lab.runner
        if request.method == "PUT":
            content = await _content(request)
            profile = _profile(content, runner.engine.profile)
            runner.reconfigure(profile, runner.engine.slow, _scale(content, runner.scale))
        profile = runner.engine.profile
        limits = changed_limits(profile).given
        return JSONResponse({**asdict(profile), "time_scale": runner.scale, "limits": limits})

    async def cache(self, request: Request) -> Response:
        cache = self._lab.runner.engine.cache
        if request.method == "DELETE":
            cache.clear()
        return JSONResponse({"blocks": len(cache), "size": cache.size})

    def _behave(self, behaviour: Behaviour) -> None:
        self._lab.switch.set(behaviour)
        runner = self._lab.runner
        runner.reconfigure(runner.engine.profile, behaviour.slow, runner.scale)

    def on_refused(self, _request: Request, error: Exception) -> Response:
        if not isinstance(error, RefusedError):
            raise error
        return self._problem(error.status, error.message, error.headers)

    def on_http(self, _request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return self._problem(error.status_code, error.detail, dict(error.headers or {}))

    def _problem(self, status: int, message: str, headers: dict[str, str]) -> Response:
        content = {
            "error": message,
            "server": self._lab.settings.name,
            "timestamp": datetime.now(UTC).isoformat(),
        }
        return JSONResponse(content, status, headers)


async def _content(request: Request) -> object:
    body = await read_body(request.scope, request.receive, _LIMIT)
    try:
        return parse_json(body)
    except ValueError as error:
        raise RefusedError(400, str(error)) from None


_LIMITS = tuple(Limits.__dataclass_fields__)


def _profile(content: object, current: Profile) -> Profile:
    """The profile that a request sets; the limits in the request replace the profile's."""
    allowed = ("profile", "time_scale", *_LIMITS)
    if not isinstance(content, dict) or not content or set(content) - set(allowed):
        raise RefusedError(400, f"expected an object with any of {', '.join(allowed)}")
    name = content.get("profile")
    if name is not None and (not isinstance(name, str) or name not in PROFILES):
        raise RefusedError(400, f'"profile" must be one of {", ".join(PROFILES)}')
    profile = PROFILES[name] if name else current
    return Limits(**{limit: _limit(content, limit) for limit in _LIMITS}).applied_to(profile)


def _limit(content: dict[str, object], name: str) -> int:
    limit = content.get(name, 0)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= MOST:
        raise RefusedError(400, f'"{name}" must be a whole number from 0 to {MOST}')
    return limit


def _scale(content: object, current: float) -> float:
    scale = content.get("time_scale", current) if isinstance(content, dict) else current
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0.001 <= scale <= 1e4:
        raise RefusedError(400, '"time_scale" must be a number from 0.001 to 10000')
    return float(scale)
