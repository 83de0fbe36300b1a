"""Read nginx's debug log: every pick and release, in the order in which nginx made them.

nginx writes a line before it takes the lock of the upstream's zone, and its next line afterwards.
So an event lies between two lines of one worker. Events of two workers whose lines interleave may
have happened in either order; all others are in the order of the log.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec import structs

from .access_log import Hit

PICK, TIMED, RELEASE = "pick", "timed", "release"

_LINE = re.compile(
    rb"(?P<number>\d+):(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[\w+\]"
    rb" (?P<worker>\d+)#\d+: (?:\*(?P<connection>\d+) )?(?P<text>.*)"
)
_REQUEST = b"http request line: "
_PICK = re.compile(rb"get [a-z0-9 ]+ peer, try: \d+")
_RELEASE = re.compile(rb"free rr peer \d+ (?P<state>\d+)")
_FAILED = 4  # nginx's NGX_PEER_FAILED

Key = tuple[int, int]  # a request: its connection, and its number on that connection, from 1


class Event(msgspec.Struct, frozen=True, gc=False):
    """A pick, a measured time (least_time only) or a release in nginx's debug log.

    It happened after line `since` of the log and before line `until`, at `second` of nginx's
    clock. `attempt` numbers the servers that one request was sent to, from 0.
    """

    kind: str
    request: Key
    attempt: int
    worker: int
    second: int
    since: int
    until: int
    failed: bool = False


class Step(msgspec.Struct, frozen=True, gc=False):
    """An event, with its request and its server as in nginx's access log.

    `server` is the upstream's own name where no server was live. The other fields are Event's.
    """

    request_id: str
    attempt: int
    kind: str
    failed: bool
    server: str
    worker: int = 0
    second: int = 0
    since: int = 0
    until: int = 0


def events(lines: Iterable[bytes]) -> list[Event]:
    """Read the events of a debug log, in the order of their first lines.

    The lines begin with their numbers, as nginx/trace.awk and `grep -n` print them. A line that is
    not nginx's is skipped; any other line of nginx ends the event before it.
    """
    log = _Events()
    for line in lines:
        if read := _LINE.match(line):
            log.add(read)
    return log.events


class _Events:
    """The events read so far, and the unfinished ones of each request and worker."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.unended: dict[int, int] = {}  # worker: its event that ends at its next line
        self.requests: dict[int, int] = {}  # connection: requests so far
        self.attempts: dict[Key, int] = {}  # request: attempts so far
        self.picks: dict[Key, int] = {}  # request: its pick that was not released yet

    def add(self, line: re.Match[bytes]) -> None:
        """Take the next line of the log."""
        worker, number, text = int(line["worker"]), int(line["number"]), line["text"]
        if (unended := self.unended.pop(worker, None)) is not None:
            self.events[unended] = structs.replace(self.events[unended], until=number)
        if line["connection"] is None:
            return
        connection = int(line["connection"])
        if text.startswith(_REQUEST):
            self.requests[connection] = self.requests.get(connection, 0) + 1
            return
        request = connection, self.requests.get(connection, 0)
        if _PICK.match(text) and request in self.picks:
            self.unended[worker] = self.picks[request]  # one method falls back on another
        elif _PICK.match(text):
            self.picks[request] = len(self.events)
            attempt = self.attempts[request] = self.attempts.get(request, -1) + 1
            self._append(line, PICK, request, attempt)
        elif (picked := self.picks.get(request)) is not None:
            self._end_attempt(line, request, self.events[picked].attempt)

    def _end_attempt(self, line: re.Match[bytes], request: Key, attempt: int) -> None:
        if line["text"].startswith(b"free least time peer"):
            self._append(line, TIMED, request, attempt)
        elif release := _RELEASE.match(line["text"]):
            del self.picks[request]
            failed = bool(int(release["state"]) & _FAILED)
            self._append(line, RELEASE, request, attempt, failed=failed)

    def _append(
        self,
        line: re.Match[bytes],
        kind: str,
        request: Key,
        attempt: int,
        *,
        failed: bool = False,
    ) -> None:
        worker, number = int(line["worker"]), int(line["number"])
        self.unended[worker] = len(self.events)
        second = _second(line["time"])
        self.events.append(
            Event(kind, request, attempt, worker, second, number, number + 1, failed)
        )


@lru_cache(maxsize=64)
def _second(text: bytes) -> int:
    """A time of the log as a number of seconds, whatever its time zone."""
    return int(
        datetime.strptime(text.decode(), "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    )


@dataclass(frozen=True, slots=True)
class Order:
    """nginx's picks and releases for the requests of a log, in order; or why they are unknown.

    `gap` is empty if every attempt of every request has its pick in the trace.
    """

    steps: tuple[Step, ...] = ()
    gap: str = ""


def order(lines: Iterable[bytes], hits: Sequence[Hit]) -> Order:
    """Join a debug log with the hits of the access log, by connection and request.

    Events of requests that are not among the hits belong to another upstream and are left out.
    The steps have the addresses of the hits, or the names if the hits have names.
    """
    by_request = {(hit.connection, hit.connection_requests): hit for hit in hits if hit.connection}
    if len(by_request) < len(hits):
        return Order(gap="the log does not number its connections and their requests")
    if len({hit.request_id for hit in hits}) < len(hits):
        return Order(gap="requests of the log share an id")
    read = [event for event in events(lines) if event.request in by_request]
    picks = dict.fromkeys(by_request, 0)
    for event in read:
        picks[event.request] += event.kind == PICK
    untraced = sum(picks[key] != len(hit.upstream_addr) for key, hit in by_request.items())
    if untraced:
        return Order(gap=f"the trace lacks picks of {untraced:,} of {len(hits):,} requests")
    return Order(tuple(_step(event, by_request[event.request]) for event in read))


def _step(event: Event, hit: Hit) -> Step:
    return Step(
        hit.request_id,
        event.attempt,
        event.kind,
        event.failed,
        hit.upstream_addr[event.attempt],
        event.worker,
        event.second,
        event.since,
        event.until,
    )
