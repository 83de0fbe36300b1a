"""Ask the Docker engine over its socket what runs, and start processes in containers.

`lab use` and `lab status` need no more than this. Docker's own library takes 0.25 s of CPU to
import; modules that act on containers use it through `sdk`.
"""

import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, Protocol, Self
from urllib.parse import quote, urlsplit

from ..errors import LabError
from ..paths import SETUP

SOCKET = "unix:///var/run/docker.sock"
SECONDS = 120.0
QUIET = 0.2  # seconds without an event after which all are taken as read
HEADER = struct.Struct(">BxxxL")  # of a frame of output: which stream, how many bytes
STDOUT = 1
LAST_LINES = (4_000, 64_000)  # of a log that are read before the whole log is
PIECES = 4  # the engine may store one very long line in this many


class Described(Protocol):
    """A container of this module, or one of Docker's library."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The container's labels."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """The output of inspect."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine described it at the time; `attrs` is the output of inspect."""

    attrs: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The container's id."""
        return str(self.attrs["Id"])

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.attrs["Name"]).lstrip("/")

    @property
    def status(self) -> str:
        """The engine's word for its state, such as running, paused or exited."""
        return str(self.attrs["State"]["Status"])

    @property
    def labels(self) -> Mapping[str, str]:
        """The container's labels."""
        labels: Mapping[str, str] = self.attrs["Config"]["Labels"] or {}
        return labels


@dataclass(frozen=True, slots=True)
class Printed:
    """The output of a container."""

    stdout: bytes
    stderr: bytes


def containers(labels: Sequence[str]) -> list[Container]:
    """All containers that have these labels, running or not."""
    filters = quote(json.dumps({"label": list(labels)}))
    listed = _json("GET", f"/containers/json?all=1&filters={filters}")
    return [Container(attrs) for entry in listed if (attrs := _inspect(entry["Id"]))]


def attached(container: str, words: Sequence[str]) -> HTTPConnection:
    """Start a command in a container; return the connection to its input and output.

    The output comes in frames: a HEADER, then as many bytes as it says.
    """
    streams = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    created = _json("POST", f"/containers/{container}/exec", {**streams, "Cmd": list(words)})
    connection = _connection(os.environ.get("DOCKER_HOST") or SOCKET)
    headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
    body = json.dumps({"Detach": False, "Tty": False})
    with _no_engine():
        connection.request("POST", f"/exec/{created['Id']}/start", body, headers)
        response = connection.getresponse()
    if response.status >= 400:
        with closing(connection):
            _read(response, response.read())
    return connection


def printed_since(container: str, since: float) -> Printed:
    """The output of a container since a moment, in seconds since the epoch.

    The engine searches for a moment from the beginning of the log, which takes a second for 200,000
    lines, but finds the last lines from its end. So the last lines are read first, and more only if
    these do not reach back to the moment.
    """
    for lines in LAST_LINES:
        printed = _logs(container, since, str(lines))
        if (printed.stdout.count(b"\n") + printed.stderr.count(b"\n")) * PIECES < lines:
            return printed
    return _logs(container, since, "all")


class Events:
    """What happens to containers and networks from now on: the events with one of these actions.

    The engine keeps them for this connection until they are read. A context manager closes it.
    """

    def __init__(self, actions: Sequence[str]) -> None:
        filters = quote(json.dumps({"event": list(actions)}))
        self._connection = _connection(os.environ.get("DOCKER_HOST") or SOCKET)
        with _no_engine():
            self._connection.request("GET", f"/events?filters={filters}")
            self._response = self._connection.getresponse()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def read(self) -> list[Mapping[str, Any]]:
        """The events so far, as the engine describes them. It can be called once."""
        events: list[Mapping[str, Any]] = []
        self._connection.sock.settimeout(QUIET)
        with suppress(TimeoutError):  # no more yet: the stream has no end
            events += (json.loads(line) for line in self._response)
        return events


def _logs(container: str, since: float, tail: str) -> Printed:
    """The last `tail` lines of a container's log, without those before a moment."""
    query = f"stdout=1&stderr=1&since={since:.3f}&tail={tail}"
    with _request("GET", f"/containers/{container}/logs?{query}") as response:
        if response.status >= 400:
            _read(response, response.read())
        return _printed(response)


def _inspect(container: str) -> Mapping[str, Any] | None:
    """The engine's description of a container; None if it has been removed."""
    with _request("GET", f"/containers/{container}/json") as response:
        text = response.read()
        if response.status == 404:
            return None
        attrs: Mapping[str, Any] = _read(response, text)
        return attrs


def _printed(response: HTTPResponse) -> Printed:
    """The container's output in a response of the engine, by stream."""
    parts: dict[bool, list[bytes]] = {True: [], False: []}
    for stream, data in _frames(response.read()):
        parts[stream == STDOUT].append(data)
    return Printed(b"".join(parts[True]), b"".join(parts[False]))


def _frames(output: bytes) -> Iterator[tuple[int, bytes]]:
    """The pieces of a container's output, each with the number of its stream."""
    start = 0
    while start < len(output):
        stream, length = HEADER.unpack_from(output, start)
        start += HEADER.size
        yield stream, output[start : start + length]
        start += length


def _json(method: str, path: str, content: object = None) -> Any:
    with _request(method, path, content) as response:
        return _read(response, response.read())


def _read(response: HTTPResponse, text: bytes) -> Any:
    answer = json.loads(text)
    if response.status >= 400:
        raise LabError(f"the Docker engine refused: {answer.get('message', answer)}", "lab status")
    return answer


def _request(method: str, path: str, content: object = None) -> HTTPResponse:
    """Send one request to the engine; LabError if no engine answers."""
    connection = _connection(os.environ.get("DOCKER_HOST") or SOCKET)
    body = None if content is None else json.dumps(content)
    headers = {"Connection": "close"}  # else the socket stays open after the response
    headers |= {"Content-Type": "application/json"} if body else {}
    with _no_engine():
        connection.request(method, path, body, headers)
        return connection.getresponse()


@contextmanager
def _no_engine() -> Iterator[None]:
    """A connection that fails within the block is a LabError: no engine answers."""
    try:
        yield
    except (OSError, HTTPException) as error:
        raise LabError(f"no Docker engine answers: {error}", SETUP) from None


def _connection(address: str) -> HTTPConnection:
    """A connection to the engine at unix:///PATH or tcp://HOST:PORT."""
    place = urlsplit(address)
    if place.scheme == "unix":
        return UnixConnection(place.path)
    if place.scheme in ("tcp", "http"):
        return HTTPConnection(place.hostname or "", place.port, timeout=SECONDS)
    raise LabError(
        f'DOCKER_HOST="{address}": the lab needs an engine on this machine',
        "DOCKER_HOST=unix:///var/run/docker.sock",
    )


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)
