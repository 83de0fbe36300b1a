"""Read nginx's log lines: one Hit for each request that reached the upstream."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")
LATEST = 1e11  # seconds since the epoch, in the year 5138; a later time is malformed
_SHOWN = 200  # characters of a malformed line that are kept
# what stands before nginx's own line: a byte order mark, the name that `docker compose logs` or
# `kubectl logs --prefix` puts there, a time, and the kubelet's stream or the host and tag of syslog
# and journalctl; or all fields of an RFC 5424 message
_PREFIX = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:[^\s{\[]\S* *\| |\[pod/\S+\] )?"
    rb"(?:(?:<\d{1,3}>)?1 (?:-|\d{4}-\d\d-\d\dT\S+)(?: \S+){4} "
    rb"(?:-|(?:\[(?:[^\]\\]|\\.)*\])+) (?:\xef\xbb\xbf)?"
    rb"|(?:<\d{1,3}>)?(?:\d{4}-\d\d-\d\dT\S+|[A-Z][a-z]{2} [ \d]\d [\d:.]{8,15}"
    rb"|[A-Z][a-z]{2} \d{4}-\d\d-\d\d [\d:.]{8,15} [A-Z]{3,5}) "
    rb"(?:std(?:out|err) F |(?:\S+ )?[\w./-]+(?:\[\d+\])?: )?)?"
)
# a line as Docker's json-file driver keeps it, with nginx's own line as the value of "log"
_IN_DOCKER_FILE = re.compile(
    rb'\{"log":("(?:[^"\\]|\\.)*"),"stream":"std(?:out|err)",.*"time":"[^"]*"\}\s*'
)
DOCKER_FILE = b'{"log":"'
IN_JOURNAL = b'"__REALTIME_TIMESTAMP"'  # a key of each line of `journalctl -o json`
# what `escape=default` makes of a quote, a backslash, and bytes outside printable ASCII
_HEX = re.compile(rb"\\x([0-9A-F]{2})")

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


# A log has a million of these: msgspec makes a frozen value fifty times as fast as a dataclass
class Hit(msgspec.Struct, frozen=True, gc=False):
    """One request that nginx passed to the upstream, in nginx's own names.

    `upstream_addr` has every address tried, in order (the upstream's own name if nginx logged
    "no live upstreams"). The three tuples of times and `upstream_status` have a value for each,
    None where nginx wrote "-". Times are seconds; `msec` is the end of the request.
    `connection_requests` numbers the requests of one `connection`, from 1. Both are 0 if the log
    does not have them, and so is `server_port`, the port that received the request.
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


_FIELDS = msgspec.structs.fields(Hit)
# the values of a plain line, by the type of their field: see `plain`
_PLAIN: dict[object, bytes] = {
    int: rb"(?:[0-9]{0,18}|-)",
    float: rb"(?:[0-9]{1,10}(?:\.[0-9]*)?|-|)",
    tuple[int | None, ...]: rb"(?:[0-9]{0,18}|-)",
    tuple[float | None, ...]: rb"(?:[0-9]{1,10}(?:\.[0-9]*)?|-|)",
}
_PLAIN_TEXT = rb'[^"\\\x00-\x1f]*'
_PLAIN_SERVER = rb'[^"\\\x00-\x20,]*'
_TYPES = {field.name: field.type for field in _FIELDS}


class _Line(msgspec.Struct, gc=False):
    """The values of one line of the JSON log as text, in the fields of Hit."""

    upstream_addr: str
    status: str = ""
    msec: str = ""
    request_time: str = ""
    request_id: str = ""
    remote_addr: str = ""
    request_method: str = ""
    request_uri: str = ""
    hash_key: str = ""
    http_cookie: str = ""
    bytes_sent: str = ""
    pid: str = ""
    server_port: str = ""
    connection: str = ""
    connection_requests: str = ""
    upstream_status: str = ""
    upstream_connect_time: str = ""
    upstream_header_time: str = ""
    upstream_response_time: str = ""


# nginx's own lines, in which every value has quotes
_QUOTED = msgspec.json.Decoder(_Line)


class Unproxied(msgspec.Struct, frozen=True, gc=False):
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
    """A line without a request: its number, counted from 1, and the start of its text."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Log:
    """A whole log: every line is in exactly one of the three tuples, in the log's order."""

    hits: tuple[Hit, ...]
    unproxied: tuple[Unproxied, ...] = ()
    malformed: tuple[Malformed, ...] = ()


def read(lines: Iterable[bytes]) -> Log:
    """Read the lab's JSON log into memory; for a log of any size use `records`."""
    entries = list(records(lines))
    return Log(
        hits=tuple(entry for entry in entries if isinstance(entry, Hit)),
        unproxied=tuple(entry for entry in entries if isinstance(entry, Unproxied)),
        malformed=tuple(entry for entry in entries if isinstance(entry, Malformed)),
    )


def records(lines: Iterable[bytes]) -> Iterator[Hit | Unproxied | Malformed]:
    """Yield the record of each line of the lab's JSON log, one per line."""
    for number, line in enumerate(lines, 1):
        yield record(line) or Malformed(number, _text(line)[:_SHOWN])


def record(line: bytes) -> Hit | Unproxied | None:
    """Parse one line of the JSON log; None if it contains no request.

    The keys are nginx's variables (the fields of Hit), the values are escaped by `escape=json`.
    Bytes that are not UTF-8 become lone surrogates, so `encode("utf-8", "surrogateescape")` returns
    what the client sent. Prefixes of `docker compose logs` and syslog are skipped.
    """
    try:
        return _request(_words(line))
    except (ValueError, RecursionError):
        return None


def without_prefix(line: bytes) -> bytes:
    """nginx's own line, without what `docker compose logs`, kubectl or syslog put before it."""
    return _PREFIX.sub(b"", line, count=1)


def unwrapped(line: bytes) -> bytes:
    """nginx's own line from one of Docker's json-file driver or `journalctl -o json`.

    Any other line is returned as it is.
    """
    if IN_JOURNAL in line and line.startswith(b"{"):
        return _message(line)
    match = _IN_DOCKER_FILE.fullmatch(line)
    if not match:
        return line
    try:
        text: str = json.loads(_text(match[1]))
        return text.encode("utf-8", "surrogateescape")
    except ValueError:  # a damaged line
        return line


def _message(line: bytes) -> bytes:
    """The message of a journal's entry, which is a list of bytes where it is not plain text."""
    try:
        message = json.loads(_text(line))["MESSAGE"]
        return (
            bytes(message)
            if isinstance(message, list)
            else str(message).encode("utf-8", "surrogateescape")
        )
    except (ValueError, KeyError, TypeError, RecursionError):  # a damaged line, or another object
        return line


def parsed(line: bytes) -> Any:
    r"""The value of a JSON line; ValueError if the line is not JSON.

    A format without `escape=json` writes `\x22` for a quote, which is not valid JSON.
    """
    line = line if line.startswith(b"{") else without_prefix(line)
    try:
        return json.loads(_text(line))
    except ValueError:
        if rb"\x" not in line:
            raise
        return json.loads(_text(_HEX.sub(_as_json, line)))


def _as_json(match: re.Match[bytes]) -> bytes:
    byte = bytes.fromhex(match[1].decode())
    return byte if byte >= b"\x7f" else b"\\u00" + match[1]


def plain(line: bytes) -> re.Pattern[bytes] | None:
    """Make a pattern of the plain lines that have the keys of `line`, in the same order.

    Such a line has one request to at most one server, in group 1; the caller has to check that
    group 1 is an address. None if `line` is not plain, because it has escapes, several servers,
    or values without quotes. Most lines of a log are plain.
    """
    try:
        pairs = json.loads(without_prefix(line), object_pairs_hook=tuple)
        values = dict(pairs)
    except (ValueError, TypeError, RecursionError):
        return None
    if len(values) < len(pairs) or not all(map(str.isascii, values)):
        return None
    parts = (
        rb'"upstream_addr"(: ?"%s)"' % _PLAIN_SERVER
        if name == "upstream_addr"
        else b'"%s": ?"%s"' % (re.escape(name.encode()), _PLAIN.get(_TYPES.get(name), _PLAIN_TEXT))
        for name in values
    )
    pattern = re.compile(_PREFIX.pattern + rb"\{" + b", ?".join(parts) + rb"\}\r*")
    return pattern if pattern.groups and pattern.fullmatch(line) else None


def line(hit: Hit) -> bytes:
    """Format a hit as nginx would have logged it; `record` parses it."""
    fields = {field.name: _as_logged(getattr(hit, field.name)) for field in _FIELDS}
    return json.dumps(fields).encode() + b"\n"


def _as_logged(value: object) -> str:
    """A value as nginx logs it: a list with commas, "-" for no value."""
    if isinstance(value, tuple):
        return ", ".join("-" if part is None else str(part) for part in value)
    return str(value)


def named(hits: Iterable[Hit], names: Mapping[str, str]) -> Iterator[Hit]:
    """Yield the hits with addresses replaced by names; an address without a name stays."""
    for hit in hits:
        tried = tuple([names.get(address, address) for address in hit.upstream_addr])
        same = tried == hit.upstream_addr
        yield hit if same else msgspec.structs.replace(hit, upstream_addr=tried)


@lru_cache(maxsize=4096)
def addresses(text: str) -> tuple[str, ...]:
    """Every address in a value of `$upstream_addr`, in order; none if it is "-" or empty.

    Raises ValueError if the text is not such a value, such as `127.0.0.` in a truncated line.
    """
    return tuple(filter(None, _entries(text)))


@lru_cache(maxsize=4096)
def _entries(text: str) -> tuple[str, ...]:
    """Every entry of `$upstream_addr`; an empty one means a group that tried no server."""
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


def _request(line: _Line) -> Hit | Unproxied:
    """Read one object of the log; ValueError if it is not a request."""
    entries = _entries(line.upstream_addr)
    return _hit(line, entries) if any(entries) else _unproxied(line)


def _hit(line: _Line, entries: tuple[str, ...]) -> Hit:
    return Hit(
        upstream_addr=entries if all(entries) else tuple(filter(None, entries)),
        status=_count(line.status),
        msec=_seconds(line.msec),
        request_time=_seconds(line.request_time),
        request_id=line.request_id,
        remote_addr=line.remote_addr,
        request_method=line.request_method or "GET",
        request_uri=line.request_uri or "/",
        hash_key=line.hash_key,
        http_cookie=line.http_cookie,
        bytes_sent=_count(line.bytes_sent),
        pid=_count(line.pid),
        server_port=_count(line.server_port),
        connection=_count(line.connection),
        connection_requests=_count(line.connection_requests),
        upstream_status=_beside(entries, _statuses(line.upstream_status)),
        upstream_connect_time=_beside(entries, _times(line.upstream_connect_time)),
        upstream_header_time=_beside(entries, _times(line.upstream_header_time)),
        upstream_response_time=_beside(entries, _times(line.upstream_response_time)),
    )


def _unproxied(line: _Line) -> Unproxied:
    return Unproxied(
        status=_count(line.status),
        msec=_seconds(line.msec),
        request_id=line.request_id,
        remote_addr=line.remote_addr,
        request_method=line.request_method,
        request_uri=line.request_uri,
    )


def _beside(entries: tuple[str, ...], column: tuple[_T, ...]) -> tuple[_T, ...]:
    """The entries of a column that belong to an address; ValueError if the lengths differ."""
    if not column or len(entries) == len(column) == 1:
        return column
    return tuple(value for entry, value in zip(entries, column, strict=True) if entry)


def _words(line: bytes) -> _Line:
    """The values of a JSON line as text; ValueError if it is not an object of plain values."""
    try:
        return _QUOTED.decode(line)
    except ValueError:  # a prefix, numbers without quotes, bytes that are not UTF-8
        fields = parsed(line)
        if not isinstance(fields, dict):
            raise
        names = _Line.__struct_fields__
        return msgspec.convert(
            {name: _word(fields[name]) for name in names if name in fields}, _Line
        )


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
    """Read digits only; 0 if nginx wrote none."""
    if text in _NONE:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'not a count: "{text}"')
    return int(text)


def _seconds(text: str) -> float:
    """Read a time, not negative and not after LATEST; 0 if nginx wrote none."""
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
