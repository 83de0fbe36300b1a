"""Read an access log by its `log_format`: one Visit for each line."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from ..errors import UsageError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# combined, or the article's line, with the request time as the last number of the line
_USUAL = re.compile(
    r"(?P<remote_addr>[0-9A-Fa-f.:]+)(?::\d+ \S+)? - \S+ \[(?P<time_local>[^\]]+)\] "
    r'"(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) \d+ '
    r'"(?:[^"\\]|\\.)*" "(?P<http_user_agent>(?:[^"\\]|\\.)*)"'
    r"(?:.*?(?<![\w.:])(?:\w+=)?\"?(?P<request_time>\d+\.\d{3})\"?(?![\w.:]))?.*"
)
_TIMES = ("msec", "time_local", "time_iso8601")
_DURATIONS = ("upstream_response_time", "request_time")
_NONE = ("", "-")


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a log.

    `end` is when nginx logged it, in seconds since the epoch; `exact` says whether that has
    milliseconds. `seconds` is how long it lasted, None where the log does not say. `headers` are
    those that the format has as `$http_NAME`.
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


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that holds no request: its number, counted from 1, and why."""

    number: int
    reason: str


Reader = Callable[[str], Mapping[str, str] | None]


def visits(lines: Iterable[bytes], log_format: str = "") -> Iterator[Visit | Malformed]:
    """Yield a Visit or a Malformed for each line.

    `log_format` is the text that nginx's `log_format` has. Without one, JSON lines whose keys are
    nginx's variables and the combined format are read, the latter also with further fields.
    """
    fields = reader(log_format) if log_format else usual
    for number, line in enumerate(lines, 1):
        text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        try:
            values = fields(text)
            yield visit(values) if values is not None else Malformed(number, "not in the format")
        except ValueError as error:
            yield Malformed(number, str(error))


def reader(log_format: str) -> Reader:
    """Return a function that reads a line of a format: each variable's value, None for no match.

    UsageError where the format lacks what a replay needs: the request, a time.
    """
    names = [braced or bare for braced, bare in _VARIABLE.findall(log_format)]
    if not {"request", "request_uri", "uri"} & set(names):
        raise UsageError("the format has no $request", "a format with $request or $request_uri")
    if not set(_TIMES) & set(names):
        raise UsageError("the format has no time", f"a format with ${', $'.join(_TIMES)}")
    pattern = re.compile(_pattern(log_format))

    def read(line: str) -> Mapping[str, str] | None:
        match = pattern.fullmatch(line)
        return match.groupdict() if match else None

    return read


def _pattern(log_format: str) -> str:
    """A regular expression for a `log_format`; a variable that is used again must be the same."""
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
        parts.append(f"(?P<{name}>{_value(name, log_format[at : at + 1])})")
    return "".join([*parts, re.escape(log_format[at:])])


def _value(name: str, following: str) -> str:
    """Return a regular expression for a variable, given the character that follows it."""
    if name.startswith("upstream_") or following == "$":
        return ".*?"  # a list of attempts has spaces, commas and colons in it
    if name == "time_local" and following == " ":
        return r"\S+ \S+"
    if following in ('"', "'"):
        return rf"(?:[^{following}\\]|\\.)*"
    return f"[^{re.escape(following)}]*" if following else ".*"


def usual(line: str) -> Mapping[str, str] | None:
    """Return the values of a JSON line, or of a combined line with any further fields."""
    if line.startswith("{"):
        values = json.loads(line)
        return {name: str(value) for name, value in values.items() if value is not None}
    match = _USUAL.fullmatch(line)
    return match.groupdict("") if match else None


def visit(values: Mapping[str, str]) -> Visit:
    """Make a Visit from nginx's variables; ValueError names what is missing or wrong."""
    end, exact = _end(values)
    method, uri = _request(values)
    return Visit(
        end,
        exact,
        _seconds(values),
        values.get("remote_addr") or "127.0.0.1",
        method,
        uri,
        int(values.get("status") or 0),
        _last(values.get("upstream_addr", "")),
        {
            name[len("http_") :].replace("_", "-"): value
            for name, value in values.items()
            if name.startswith("http_") and value not in _NONE
        },
    )


def _end(values: Mapping[str, str]) -> tuple[float, bool]:
    """Return when the request ended, and whether the log has its milliseconds."""
    if msec := values.get("msec"):
        return _finite(msec), True
    if local := values.get("time_local"):
        return _clock(local, "%d/%b/%Y:%H:%M:%S %z"), False
    if iso := values.get("time_iso8601"):
        return _clock(iso, ""), False
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
    method, _, rest = values.get("request", "").partition(" ")
    uri = values.get("request_uri") or values.get("uri") or rest.rpartition(" ")[0] or rest
    if not uri.startswith(("/", "http", "*")):
        raise ValueError("no request line")
    return values.get("request_method") or method or "GET", uri


def _seconds(values: Mapping[str, str]) -> float | None:
    """Return the last upstream response time, else the request time; None without both."""
    for name in _DURATIONS:
        text = _last(values.get(name, ""))
        if text not in _NONE:
            return _finite(text)
    return None


def _last(text: str) -> str:
    """Return the last entry of a list that nginx writes for a request with several attempts."""
    return re.split(r", | : ", text)[-1] if text not in _NONE else ""


def _finite(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1e12:
        raise ValueError(f'not a time: "{text[:40]}"')
    return number
