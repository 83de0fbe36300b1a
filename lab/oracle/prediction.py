"""Requests as JSON lines in, nginx's picks as JSON lines out."""

import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from json.scanner import make_scanner
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, cast

from .. import oracle
from ..errors import UsageError
from ..nginxconf.model import Upstream
from ..nginxconf.request import check_uri, raw
from ..nginxconf.variables import (
    Evaluator,
    Request,
    Variables,
    compile_text,
    compile_variable,
    merges_slashes,
)
from . import Arrival, Pick
from .retry import TRANSPORT

FIELDS = ("uri", "client_ip", "method", "headers", "body", "key", "t", "start", "duration", "fail")
FAILURES = ", ".join([*TRANSPORT, "http_500 and the like"])
METHOD = re.compile(r"[A-Z_-]+")
STATUS = re.compile(r"http_[1-5]\d\d", re.ASCII)
# more than any run lasts, and exact to the millisecond in a float
MAX_SECONDS = 1e12
MAX_SHOWN = 40
BLANKS = " \t\r\n"
EXAMPLE = 'one object a line, as {"uri": "/chat/1"}'
NONE: Mapping[str, Any] = MappingProxyType({})
# bytes that are written together, and rendered picks that are cached
BATCH = 262_144
REMEMBERED = 65_536

Check = Callable[[Any], None]


class Output(Protocol):
    """A binary file to write lines to."""

    def write(self, data: bytes, /) -> object:
        """Write some bytes."""


def predict_lines(
    upstream: Upstream,
    lines: Iterable[bytes],
    out: Output,
    conf: Variables | None = None,
    *,
    source: str = "requests",
) -> int:
    """Write one JSON line per request, in order, and return their number.

    `server` is the text of the `server` line (null where nginx says "no live upstreams"),
    `attempts` all servers tried, `candidates` (if the pick is not certain) each server that nginx
    may pick with its probability, null if unknown. Predictions before a malformed line are written
    before its UsageError is raised.
    """
    picks = oracle.predict(upstream, arrivals(lines, upstream, conf, source))
    rendered = _renderer()
    count = size = 0
    batch: list[bytes] = []
    try:
        for pick in picks:
            line = rendered(pick)
            batch.append(line)
            size += len(line)
            if size >= BATCH:
                out.write(b"".join(batch))
                count += len(batch)
                size = 0
                batch.clear()
    finally:
        out.write(b"".join(batch))
    return count + len(batch)


def arrivals(
    lines: Iterable[bytes],
    upstream: Upstream,
    conf: Variables | None = None,
    source: str = "requests",
) -> Iterator[Arrival]:
    """Read one request per line: a JSON object with any of FIELDS.

    `t` (or `start`) is in seconds and never goes back; a line without it has the time of the line
    before. Without `key` the hash key is evaluated from the request by `conf`. A malformed line
    is a UsageError with its number.
    """
    read = _reader(upstream, conf or Variables(upstream=upstream.name))
    known: dict[bytes, Arrival] = {}
    now = 0.0
    for number, line in enumerate(lines, 1):
        if (arrival := known.get(line)) is None or arrival.t != now:
            try:
                arrival = read(line, now)
            except UsageError as error:
                raise UsageError(f"{error.message} in {source}:{number}", error.hint) from None
            # equal lines are equal requests while the time is the same
            if arrival.t == now and len(known) < REMEMBERED:
                known[line] = arrival
            now = arrival.t
        yield arrival


def render(pick: Pick) -> bytes:
    """One pick as a JSON line."""
    shown: dict[str, object] = {"server": pick.server, "attempts": pick.attempts}
    if pick.candidates:
        shown["candidates"] = dict(pick.candidates)
    return _json(shown) + b"\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _renderer() -> Callable[[Pick], bytes]:
    """Return a faster `render`, which caches both parts of a line.

    A method returns the same mapping of candidates while the state of its servers is the same. Its
    text, which may name thousands of servers, is made once per mapping.
    """
    heads: dict[tuple[str | None, tuple[str, ...]], bytes] = {}
    candidates: Mapping[str, float | None] = NONE
    tail = b"}\n"

    def rendered(pick: Pick) -> bytes:
        nonlocal candidates, tail
        shown = pick.server, pick.attempts
        if (head := heads.get(shown)) is None:
            head = render(Pick(*shown))[:-2]
            if len(heads) < REMEMBERED:
                heads[shown] = head
        if pick.candidates is not candidates:
            candidates = pick.candidates
            tail = b', "candidates": %b}\n' % _json(dict(candidates)) if candidates else b"}\n"
        return head + tail

    return rendered


def _reader(upstream: Upstream, conf: Variables) -> Callable[[bytes, float], Arrival]:
    """The function that makes an Arrival from a line and the time of the line before."""
    key = _key(upstream, conf)
    sticky = _first_of(upstream.sticky.lookups if upstream.sticky else (), upstream, conf)
    learnt = _first_of(upstream.sticky.create if upstream.sticky else (), upstream, conf)
    servers = {server.name for server in upstream.servers}
    checks: dict[str, Check] = {**CHECKS, "fail": partial(_check_fail, servers)}
    evaluates = bool(key or sticky or learnt)
    check_target = partial(check_uri, merge_slashes=merges_slashes(conf))

    def read(line: bytes, now: float) -> Arrival:
        given = _parsed(line)
        for name, value in given.items():
            if (check := checks.get(name)) is None:
                raise UsageError(f'unknown field "{name}"', f"any of {', '.join(FIELDS)}")
            check(value)
        get = given.get
        t = _time(given, now) if "t" in given or "start" in given else now
        client_ip, method = get("client_ip", "127.0.0.1"), get("method", "GET")
        duration, fail = get("duration"), get("fail", NONE)
        try:
            if "uri" in given:
                check_target(given["uri"])
            hashed = raw(given["key"]) if "key" in given else b""
            body = raw(given["body"]) if "body" in given else b""
            if not evaluates:
                return Arrival(hashed, client_ip, "", method, t, duration, fail, NONE)
            request = Request(get("uri", "/"), client_ip, method, get("headers", NONE), body)
            if key and "key" not in given:
                hashed = key(request)
            return Arrival(
                hashed,
                client_ip,
                sticky(request) if sticky else "",
                method,
                t,
                duration,
                fail,
                NONE,
                learnt=learnt(request) if learnt else "",
            )
        except UnicodeEncodeError:
            raise UsageError("text with half a surrogate pair") from None

    return read


def _key(upstream: Upstream, conf: Variables) -> Evaluator | None:
    """The hash key's evaluator; a key that it cannot evaluate fails lines without `key`."""
    if not upstream.key:
        return None
    try:
        return compile_text(upstream.key, conf, upstream.where)
    except UsageError as error:
        return _raising(error)


def _raising(error: UsageError) -> Evaluator:
    def refuse(_request: Request) -> NoReturn:
        raise error

    return refuse


def _first_of(
    variables: tuple[str, ...], upstream: Upstream, conf: Variables
) -> Callable[[Request], str] | None:
    """The first of these variables that is not empty; those set by the backend are unknown here."""
    known = [name for name in variables if not name.startswith("$upstream_")]
    finders = [compile_variable(name, conf, upstream.where) for name in known]
    if not finders:
        return None

    def find(request: Request) -> str:
        for finder in finders:
            if value := finder(request):
                return value.decode("utf-8", "surrogateescape")
        return ""

    return find


def _refuse_constant(text: str) -> NoReturn:
    raise UsageError(f"{text} is not a JSON number")


# the decoder's C scanner, called directly: `decode` takes longer than the scan itself
SCAN = make_scanner(cast("Any", json.JSONDecoder(parse_constant=_refuse_constant)))


def _parsed(line: bytes) -> dict[str, Any]:
    """The JSON object of a line."""
    try:
        text = line.decode().strip(BLANKS)
        given, end = SCAN(text, 0)
    except StopIteration:
        raise UsageError("not JSON", EXAMPLE) from None
    except json.JSONDecodeError as error:
        raise UsageError(f"not JSON ({error.msg} at column {error.colno})", EXAMPLE) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON ({error})", EXAMPLE) from None
    if end != len(text):
        raise UsageError(f"more than one JSON value (at column {end + 1})", EXAMPLE)
    if not isinstance(given, dict):
        raise UsageError("not a JSON object", EXAMPLE)
    return given


def _time(given: Mapping[str, Any], now: float) -> float:
    """The time of the pick: `t`, or `start`, which means the same."""
    times = [float(given[name]) for name in ("t", "start") if name in given]
    if times[0] != times[-1]:
        raise UsageError(f'"t" {given["t"]} and "start" {given["start"]} differ', "give one")
    if times[0] < now:
        raise UsageError(f"t goes back from {now:g} to {times[0]:g}", "order the lines by time")
    return times[0]


def _check_text(name: str) -> Check:
    def check(value: Any) -> None:
        if type(value) is not str:
            raise UsageError(f'"{name}" is {_shown(value)}', "give a string")

    return check


def _check_seconds(name: str) -> Check:
    def check(value: Any) -> None:
        if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:
            raise UsageError(f'"{name}" is {_shown(value)}', "give seconds, 0 or more")

    return check


def _check_ip(value: Any) -> None:
    if type(value) is str and (value == "unix:" or _is_ip(value)):
        return
    raise UsageError(f'"client_ip" is {_shown(value)}', "give an IPv4 or IPv6 address")


def _is_ip(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def _check_method(value: Any) -> None:
    if type(value) is not str or not METHOD.fullmatch(value):
        raise UsageError(f'"method" is {_shown(value)}', "give GET, POST or the like")


def _check_headers(value: Any) -> None:
    if type(value) is not dict or any(type(text) is not str for text in value.values()):
        raise UsageError(f'"headers" is {_shown(value)}', "give an object: name to string")


def _check_fail(servers: set[str], value: Any) -> None:
    if type(value) is not dict:
        raise UsageError(f'"fail" is {_shown(value)}', "give an object: server to failure")
    for server, kind in value.items():
        if server not in servers:
            raise UsageError(f'unknown server "{server}" in fail', ", ".join(sorted(servers)))
        if type(kind) is not str or not (kind in TRANSPORT or STATUS.fullmatch(kind)):
            raise UsageError(f'unknown failure {_shown(kind)} of server "{server}"', FAILURES)


def _shown(value: object) -> str:
    """A value as JSON, cut short."""
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


CHECKS: Mapping[str, Check] = MappingProxyType(
    {name: _check_text(name) for name in ("uri", "body", "key")}
    | {name: _check_seconds(name) for name in ("t", "start", "duration")}
    | {"client_ip": _check_ip, "method": _check_method, "headers": _check_headers}
)
