"""Read an access log by its `log_format`: one Visit for each request."""

import math
import re
import socket
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from ..errors import UsageError
from ..evidence.access_log import parsed, unwrapped, without_prefix
from ..nginxconf.request import raw
from ..nginxconf.tree import unescaped, words_of

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# the format that nginx has without a `log_format`
_COMBINED_FORMAT = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent'
    ' "$http_referer" "$http_user_agent"'
)
# the combined format or the article's
_COMBINED = re.compile(
    r"(?P<remote_addr>unix:|[0-9A-Fa-f.:]+)(?::\d+ \S+)? - [^\[\]\"]+ \[(?P<time_local>[^\]]+)\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) \d+ '
    r'"(?:[^"\\]|\\.)*" "(?P<http_user_agent>(?:[^"\\]|\\.)*)"'
    r"(?P<further>.*)"
)
# a time in seconds among the fields after the combined ones, with its name if it has one
_SECONDS = re.compile(r'(?<![\w.:])(?:(\w+)[=:] ?)?"?(\d{1,6}\.\d{3})"?(?![\w.:])')
_TIMES = ("msec", "time_local", "time_iso8601")
_DURATIONS = ("upstream_response_time", "request_time")
_NONE = ("", "-")
# variables with an entry for each attempt, separated by ", ", or by " : " where the group changed
_LISTS = {
    *("upstream_addr", "upstream_status", "upstream_response_length"),
    *("upstream_connect_time", "upstream_header_time", "upstream_response_time"),
    *("upstream_bytes_sent", "upstream_bytes_received"),
}
# variables with a header of the request, or a part of one
_SENT = ("http_", "cookie_", "host")
# how nginx escapes characters in a log: by escape=default, then by escape=json
_ESCAPED = re.compile(rb"""\\(?:x([0-9A-F]{2})|u00([0-9A-Fa-f]{2})|(["\\/bfnrt]))""")
_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a log.

    `end` is when nginx logged it, in seconds since the epoch; `exact` says whether it has
    milliseconds. `seconds` is its duration, None if the log has none. `client_ip` is "" if the log
    has no address. `proxied` is False if nginx passed the request to no server. `headers` are those
    that the format has as `$http_NAME`, `$host` and `$cookie_NAME`.
    """

    end: float
    exact: bool
    seconds: float | None
    client_ip: str
    method: str
    uri: str
    status: int
    server: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    proxied: bool = True


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that cannot be read as a request: its number, counted from 1, and the reason."""

    number: int
    reason: str


Reader = Callable[[bytes], Mapping[str, str] | None]


def visits(lines: Iterable[bytes], log_format: str = "") -> Iterator[Visit | Malformed]:
    """Yield a Visit or a Malformed for each line.

    `log_format` is the text of nginx's `log_format`, or the directive. If it is empty, a line is
    read as JSON whose keys are nginx's variables, or as the combined format, also with further
    fields after it. What Docker, Kubernetes or syslog puts before or around a line is skipped.
    """
    fields = reader(log_format) if log_format else json_or_combined
    for number, line in enumerate(lines, 1):
        try:
            values = fields(unwrapped(line).rstrip(b"\r\n").removeprefix(BOM_UTF8))
            yield visit(values) if values is not None else Malformed(number, "not in the format")
        except (ValueError, RecursionError) as error:
            yield Malformed(number, str(error))


def reader(log_format: str) -> Reader:
    """Return a function that reads a line of a format: each variable's value, None for no match.

    UsageError for a format without what a replay needs: the request and a time.
    """
    text, escape = _text_and_escape(log_format)
    names = [braced or bare for braced, bare in _VARIABLE.findall(text)]
    if not {"request", "request_uri", "uri"} & set(names):
        raise UsageError("the format has no $request", "a format with $request or $request_uri")
    if not set(_TIMES) & set(names):
        raise UsageError("the format has no time", f"a format with ${', $'.join(_TIMES)}")
    pattern = re.compile(_pattern(text, escaped=escape != "none"))

    def read(line: bytes) -> Mapping[str, str] | None:
        values = _matched(pattern, line)
        return values if values is None or escape == "none" else _unescaped(values, line)

    return read


def _matched(pattern: re.Pattern[str], line: bytes) -> Mapping[str, str] | None:
    """The values of a line, which may have a prefix; None if it does not match."""
    match = pattern.fullmatch(_text(line)) or pattern.fullmatch(_text(without_prefix(line)))
    return match.groupdict("") if match else None


def _text_and_escape(log_format: str) -> tuple[str, str]:
    """The text and the `escape` of a format, of a `log_format` directive, or of "combined"."""
    if log_format.strip() == "combined":
        return _COMBINED_FORMAT, ""
    if not re.match(r"\s*log_format\s", log_format):
        return unescaped(log_format), ""
    parts = words_of(log_format, "--format")[2:]
    if parts and parts[0].startswith("escape="):
        return "".join(parts[1:]), parts[0].removeprefix("escape=")
    return "".join(parts), ""


def _unescaped(values: Mapping[str, str], line: bytes) -> Mapping[str, str]:
    """The values of a line as the client sent them."""
    if b"\\" not in line:
        return values
    return {name: _text(_ESCAPED.sub(_character, raw(value))) for name, value in values.items()}


def _character(match: re.Match[bytes]) -> bytes:
    digits, letter = match[1] or match[2], match[3]
    return bytes.fromhex(digits.decode()) if digits else _LETTERS.get(letter, letter)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _pattern(log_format: str, *, escaped: bool) -> str:
    """A regular expression for a `log_format`; a repeated variable must have the same value.

    `escaped` says that quotes inside a value are escaped.
    """
    parts: list[str] = []
    seen: set[str] = set()
    at = 0
    for match in _VARIABLE.finditer(log_format):
        name = match[1] or match[2]
        parts.append(re.escape(log_format[at : match.start()]))
        at = match.end()
        if name in seen:
            parts.append(f"(?P={name})")
            continue
        seen.add(name)
        parts.append(f"(?P<{name}>{_value(name, log_format[at : at + 1], escaped)})")
    return "".join([*parts, re.escape(log_format[at:])])


def _value(name: str, following: str, escaped: bool) -> str:
    """Return a regular expression for a variable, given the character that follows it."""
    if name in _LISTS and following != "$":
        # not just `.*?`: several of those take minutes for a long line of another format
        entry = rf"(?:\[[^\s\]]*\]|[^\s,\[{re.escape(following)}])*"
        return rf"{entry}(?:(?:,| :) {entry})*"
    if name.startswith("upstream_") or following == "$":
        return ".*?"
    if name == "time_local" and following == " ":
        return r"\S+ \S+"
    if following in ('"', "'"):
        return rf"(?:[^{following}\\]|\\.)*" if escaped else ".*?"
    return f"[^{re.escape(following)}]*" if following else ".*"


def json_or_combined(line: bytes) -> Mapping[str, str] | None:
    """Return the values of a JSON line, or of a combined line with any further fields."""
    if (values := _matched(_COMBINED, line)) is not None:
        return {**_unescaped(values, line), "request_time": _request_time(values["further"])}
    fields = parsed(line) if b"{" in line else None
    if not isinstance(fields, dict):
        return None
    return {name: str(value) for name, value in fields.items() if value is not None}


def _request_time(fields: str) -> str:
    """Return the time named `rt` or `request_time`, else the longest of all times; "" without one.

    The times of the upstream are parts of the request time.
    """
    times = _SECONDS.findall(fields)
    named = [time for name, time in times if name in ("rt", "request_time")]
    return max(named or [time for _, time in times], key=float, default="")


def visit(values: Mapping[str, str]) -> Visit:
    """Make a Visit from nginx's variables; ValueError names what is missing or wrong."""
    end, exact = _end(values)
    method, uri = _request(values)
    return Visit(
        end,
        exact,
        _seconds(values),
        _address(values.get("remote_addr", "")),
        method,
        uri,
        _status(values.get("status", "")),
        _last_entry(values.get("upstream_addr", "")),
        _headers(values),
        values.get("upstream_addr", "unknown") not in _NONE,
    )


def _headers(values: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of `$http_NAME`, and what `$host` and `$cookie_NAME` say of theirs."""
    headers: dict[str, str] = {}
    for name, value in values.items():
        if not name.startswith(_SENT) or value in _NONE:
            continue
        if name.startswith("cookie_"):
            cookie = f"{name.removeprefix('cookie_')}={value}"
            headers["cookie"] = f"{headers['cookie']}; {cookie}" if "cookie" in headers else cookie
        elif name.startswith("http_"):
            headers[name.removeprefix("http_").replace("_", "-")] = value
        elif name == "host":
            headers.setdefault("host", value)
    return headers


def _end(values: Mapping[str, str]) -> tuple[float, bool]:
    """Return when the request ended, and whether the log has its milliseconds."""
    if msec := values.get("msec"):
        return _finite(msec), True
    if local := values.get("time_local"):
        return _clock(local, "%d/%b/%Y:%H:%M:%S %z"), False
    if iso := values.get("time_iso8601"):
        return _clock(iso, ""), "." in iso
    raise ValueError("no time")


@lru_cache(maxsize=4096)
def _clock(text: str, layout: str) -> float:
    """Seconds since the epoch; many lines of a log share one second."""
    try:
        moment = datetime.strptime(text, layout) if layout else datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'not a time: "{text[:40]}"') from None
    return moment.timestamp()


def _request(values: Mapping[str, str]) -> tuple[str, str]:
    """Return method and URI, from `$request` or from their own variables."""
    method, _, target = values.get("request", "").partition(" ")
    uri = values.get("request_uri") or values.get("uri") or target.rpartition(" ")[0] or target
    if not uri.startswith(("/", "http", "*")):
        raise ValueError("no request line")
    return values.get("request_method") or method or "GET", uri


def _seconds(values: Mapping[str, str]) -> float | None:
    """Return the last upstream response time, else the request time; None without both."""
    for name in _DURATIONS:
        text = _last_entry(values.get(name, ""))
        if text not in _NONE:
            return _finite(text)
    return None


@lru_cache(maxsize=65_536)
def _address(text: str) -> str:
    """A client's address; nginx writes `unix:` for a client of a unix socket."""
    try:
        if text not in ("", "unix:"):
            socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f'not an IP address: "{text[:40]}"') from None
    return text


@lru_cache(maxsize=1_024)
def _status(text: str) -> int:
    if text in _NONE:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise ValueError(f'not a status: "{text[:40]}"')
    return int(text)


def _last_entry(text: str) -> str:
    """Return the last entry of the list that nginx logs for a request with several attempts."""
    return re.split(r", | : ", text)[-1] if text not in _NONE else ""


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1e12:
        raise ValueError(f'not a time: "{text[:40]}"')
    return number
