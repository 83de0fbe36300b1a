"""Read nginx's log lines: one Hit for each request that reached the upstream."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

_T = TypeVar("_T")
LATEST = 1e11  # seconds: a time of nginx's in the year 5138
_SHOWN = 200  # characters of a malformed line that are kept
_COMPOSE_PREFIX = re.compile(rb"^\S+ *\| ")

# nginx writes ", " between the servers of one group and " : " between groups (ngx_http_upstream.c).
_SEPARATOR = re.compile(r", | :(?: |$)")
_NONE = ("", "-")
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_ENTRY = re.compile(
    rf"""unix:[^,"]+
    | \[[0-9A-Fa-f:.]+\](?::\d{{1,5}})?        # IPv6
    | {_OCTET}(?:\.{_OCTET}){{3}}(?::\d{{1,5}})?  # IPv4
    | (?![\d.:]*$)[\w.:@/~+%-]+                # an upstream's name: not digits and dots alone
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Hit:
    """One request that nginx passed to the upstream, in nginx's own names.

    `upstream_addr` holds every address tried, in order (the upstream's own name where nginx said
    "no live upstreams"); the three time tuples and `upstream_status` run beside it, None where
    nginx wrote "-". Times are seconds; `msec` is the end of the request. `connection_requests`
    numbers the requests of one `connection`, from 1; both are 0 where the log has neither, and
    so is `server_port`, the port at which the request came in.
    """

    upstream_addr: tuple[str, ...]
    status: int = 0
    msec: float = 0.0
    request_time: float = 0.0
    request_id: str = ""
    remote_addr: str = ""
    request_method: str = "GET"
    request_uri: str = "/"
    hash_key: str = ""
    http_cookie: str = ""
    bytes_sent: int = 0
    pid: int = 0
    server_port: int = 0
    connection: int = 0
    connection_requests: int = 0
    upstream_status: tuple[int | None, ...] = ()
    upstream_connect_time: tuple[float | None, ...] = ()
    upstream_header_time: tuple[float | None, ...] = ()
    upstream_response_time: tuple[float | None, ...] = ()


_FIELDS = fields(Hit)
_KEYS = frozenset(field.name for field in _FIELDS)


@dataclass(frozen=True, slots=True)
class Unproxied:
    """One request that never reached the upstream: nginx answered it or ended it itself."""

    status: int = 0
    msec: float = 0.0
    request_id: str = ""
    remote_addr: str = ""
    request_method: str = ""
    request_uri: str = ""

    @property
    def kind(self) -> str:
        """How the request ended, with its status: `refused by nginx (403)`."""
        return f"{_fate(self.status)} ({self.status})"


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that holds no request: its number, counted from 1, and the start of its text."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Log:
    """A whole log: every line of it is in exactly one of the three tuples, in the log's order."""

    hits: tuple[Hit, ...]
    unproxied: tuple[Unproxied, ...] = ()
    malformed: tuple[Malformed, ...] = ()


def read(lines: Iterable[bytes]) -> Log:
    """Read the lab's JSON log whole; for a log of any size use `records`."""
    entries = list(records(lines))
    return Log(
        hits=tuple(entry for entry in entries if isinstance(entry, Hit)),
        unproxied=tuple(entry for entry in entries if isinstance(entry, Unproxied)),
        malformed=tuple(entry for entry in entries if isinstance(entry, Malformed)),
    )


def records(lines: Iterable[bytes]) -> Iterator[Hit | Unproxied | Malformed]:
    """Yield what each line of the lab's JSON log holds, one for one."""
    for number, line in enumerate(lines, 1):
        yield record(line) or Malformed(number, _text(line)[:_SHOWN])


def record(line: bytes) -> Hit | Unproxied | None:
    """Read one line of the JSON log; None where it holds no request.

    The keys are nginx's variables (the fields of Hit), the values what `escape=json` makes of
    them. Bytes that are not UTF-8 become lone surrogates, so `encode("utf-8", "surrogateescape")`
    gives back what the client sent. A prefix of `docker compose logs` is skipped.
    """
    if not line.startswith(b"{"):
        line = _COMPOSE_PREFIX.sub(b"", line, count=1)
    try:
        fields = json.loads(_text(line))
        return _request(fields) if isinstance(fields, dict) else None
    except (ValueError, KeyError, RecursionError):
        return None


def line(hit: Hit) -> bytes:
    """Write a hit as nginx would have logged it; `record` reads it back."""
    fields = {field.name: _as_logged(getattr(hit, field.name)) for field in _FIELDS}
    return json.dumps(fields).encode() + b"\n"


def _as_logged(value: object) -> str:
    """A value in nginx's words: a list with commas, "-" where there is nothing."""
    if isinstance(value, tuple):
        return ", ".join("-" if part is None else str(part) for part in value)
    return str(value)


def named(hits: Iterable[Hit], names: Mapping[str, str]) -> Iterator[Hit]:
    """Yield the hits with addresses replaced by names; an address without one stays."""
    for hit in hits:
        tried = tuple(names.get(address, address) for address in hit.upstream_addr)
        yield hit if tried == hit.upstream_addr else replace(hit, upstream_addr=tried)


@lru_cache(maxsize=4096)
def addresses(text: str) -> tuple[str, ...]:
    """Every address in a value of `$upstream_addr`, in order; none where it is "-" or empty.

    Raises ValueError where the text is not such a value: `127.0.0.` of a line cut short.
    """
    return tuple(filter(None, _entries(text)))


@lru_cache(maxsize=4096)
def _entries(text: str) -> tuple[str, ...]:
    """Every entry of `$upstream_addr`; an empty one stands for a group that asked no server."""
    if text in _NONE:
        return ()
    entries = tuple(_SEPARATOR.split(text))
    if not all(entry == "" or _ENTRY.fullmatch(entry) for entry in entries):
        raise ValueError(f'not an upstream address: "{text}"')
    return entries


@lru_cache(maxsize=4096)
def _statuses(text: str) -> tuple[int | None, ...]:
    return tuple(None if part in _NONE else _count(part) for part in _parts(text))


@lru_cache(maxsize=4096)
def _times(text: str) -> tuple[float | None, ...]:
    return tuple(None if part in _NONE else _seconds(part) for part in _parts(text))


def _parts(text: str) -> list[str]:
    return _SEPARATOR.split(text) if text else []


def _request(fields: dict[str, Any]) -> Hit | Unproxied:
    """Read one object of the log; KeyError or ValueError where it is none."""
    words = fields if set(map(type, fields.values())) == {str} else _words(fields)
    entries = _entries(words["upstream_addr"])
    return _hit(words, entries) if any(entries) else _unproxied(words)


def _hit(words: dict[str, str], entries: tuple[str, ...]) -> Hit:
    get = words.get
    return Hit(
        upstream_addr=entries if all(entries) else tuple(filter(None, entries)),
        status=_count(get("status", "")),
        msec=_seconds(get("msec", "")),
        request_time=_seconds(get("request_time", "")),
        request_id=get("request_id", ""),
        remote_addr=get("remote_addr", ""),
        request_method=get("request_method", "GET"),
        request_uri=get("request_uri", "/"),
        hash_key=get("hash_key", ""),
        http_cookie=get("http_cookie", ""),
        bytes_sent=_count(get("bytes_sent", "")),
        pid=_count(get("pid", "")),
        server_port=_count(get("server_port", "")),
        connection=_count(get("connection", "")),
        connection_requests=_count(get("connection_requests", "")),
        upstream_status=_beside(entries, _statuses(get("upstream_status", ""))),
        upstream_connect_time=_beside(entries, _times(get("upstream_connect_time", ""))),
        upstream_header_time=_beside(entries, _times(get("upstream_header_time", ""))),
        upstream_response_time=_beside(entries, _times(get("upstream_response_time", ""))),
    )


def _unproxied(words: dict[str, str]) -> Unproxied:
    get = words.get
    return Unproxied(
        status=_count(get("status", "")),
        msec=_seconds(get("msec", "")),
        request_id=get("request_id", ""),
        remote_addr=get("remote_addr", ""),
        request_method=get("request_method", ""),
        request_uri=get("request_uri", ""),
    )


def _beside(entries: tuple[str, ...], column: tuple[_T, ...]) -> tuple[_T, ...]:
    """The entries of a column that belong to an address; ValueError where the lengths differ."""
    if not column or len(entries) == len(column) == 1:
        return column
    return tuple(value for entry, value in zip(entries, column, strict=True) if entry)


def _words(fields: dict[str, Any]) -> dict[str, str]:
    """Turn the numbers of a log that does not quote them into text, as nginx writes them."""
    return {key: _word(value) for key, value in fields.items() if key in _KEYS}


def _word(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if type(value) in (int, float):
        return str(value)
    raise ValueError(f"not a word: {value!r}")


@lru_cache(maxsize=4096)
def _count(text: str) -> int:
    """Read digits alone; 0 where nginx wrote none."""
    if text in _NONE:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'not a count: "{text}"')
    return int(text)


@lru_cache(maxsize=4096)
def _seconds(text: str) -> float:
    """Read a time, not negative and not after LATEST; 0 where nginx wrote none."""
    if text in _NONE:
        return 0.0
    number = float(text)
    if not 0 <= number < LATEST:
        raise ValueError(f'not a time: "{text}"')
    return number


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _fate(status: int) -> str:
    if status == 400:
        return "bad request"
    if status == 499:
        return "client gave up"
    if status >= 500:
        return "failed in nginx"
    if status >= 400:
        return "refused by nginx"
    return "answered by nginx"
