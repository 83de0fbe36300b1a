"""Account for every request of a run with faults: exactly one fate each."""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf
from operator import attrgetter
from typing import Any, TypeAlias

from msgspec import structs

from .. import fault_kinds
from ..evidence.access_log import Hit, Unproxied
from ..evidence.journal import Entry
from ..evidence.record import Record
from ..evidence.timeline import Tenure
from ..fault_kinds import Failure
from ..verdict.replay import reset_at_once, value_at
from .in_flight import EARLY, InFlight
from .join import Finding

ONCE, RETRIED, FAILED, TWICE = "answered once", "answered after a retry", "failed", "executed twice"
REFUSED = "refused by a limit"
UNEXPLAINED = "unexplained"
FATES = (ONCE, RETRIED, FAILED, REFUSED, TWICE, UNEXPLAINED)
# nginx.conf answers 503 by itself where too many large bodies are held at once, and only there
NGINX_REFUSES = 503
QUEUE_FULL = "refused"  # in a backend's journal
NGINX_LIMIT = "nginx's limit on large request bodies"

LATE = 1.0  # seconds after its repair in which a fault may still break a connection
NGINX, ALL = "nginx", "all"
REMOVAL = "removal"  # of a backend, by a smaller scale

_ERROR_CODE = re.compile(r'"code": ?"(\w+)"')  # in an error response as OpenAI has it
NO_LIVE = "no live upstreams"  # nginx's words
REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})  # nginx: idempotent


@dataclass(frozen=True, slots=True)
class Call:
    """One request as its client saw it; times are seconds since the epoch, `status` 0 without one.

    `error` is "" or the kind of failure: timeout, malformed, truncated, reset, connect…
    `code` names the reason that an error response gives, "" if it gives none.
    """

    id: str
    method: str
    sent: float
    end: float
    status: int = 0
    error: str = ""
    stream: bool = False
    code: str = ""

    @property
    def failed(self) -> bool:
        """Whether the request failed for the client."""
        return bool(self.error) or not 200 <= self.status < 400

    @property
    def sort(self) -> str:
        """GET, POST or stream: requests of one sort are affected by a fault in the same way."""
        return "stream" if self.stream else self.method


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on the timeline, from just before its injection to the end of its repair.

    `target` is a backend, "all" backends, or nginx.
    """

    target: str
    kind: str
    start: float
    end: float = inf

    @property
    def failures(self) -> frozenset[Failure]:
        """How a request that the fault affected can fail."""
        return fault_kinds.failures(self.kind)

    @property
    def loses_log_lines(self) -> bool:
        """Whether the fault may lose log lines."""
        return self.kind in fault_kinds.KINDS and fault_kinds.KINDS[self.kind].loses_log_lines

    def could_affect(self, server: str, start: float, end: float) -> bool:
        """Whether the fault could affect a request that was at `server` between two moments."""
        at_target = self.target == server or (self.target == ALL and server != NGINX)
        return at_target and self.start - EARLY <= end and start <= self.end + LATE

    def __str__(self) -> str:
        return f"{self.kind} of {self.target}"


@dataclass(frozen=True, slots=True)
class Rules:
    """nginx's configuration: its servers, `fail_timeout`, whether a sent POST is retried.

    `max_conns` has the limit of each server that has one, `down` the servers marked down.
    """

    servers: Collection[str]
    fail_timeout: float = 10.0
    non_idempotent: bool = False
    max_conns: Mapping[str, int] = field(default_factory=dict)
    down: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Fate:
    """The fate of one request: one of FATES, the servers concerned, why, and when it was sent.

    `at` is in seconds since the epoch, 0 for a request that no client sent.
    """

    id: str
    sort: str
    kind: str
    servers: tuple[str, ...] = ()
    reason: str = ""
    at: float = 0.0

    def __str__(self) -> str:
        where = f" ({', '.join(self.servers)})" if self.servers else ""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.sort} {self.id} {self.kind}{where}{why}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """The fates of a run, one per request; `began` is its start, in seconds since the epoch."""

    fates: tuple[Fate, ...]
    began: float = 0.0

    @property
    def unexplained(self) -> tuple[Fate, ...]:
        """The requests that no rule and no fault explains; a single one makes the run FAIL."""
        return self.of(UNEXPLAINED)

    @property
    def holds(self) -> bool:
        """Whether every request's fate is explained."""
        return not self.unexplained

    def of(self, kind: str, sort: str = "") -> tuple[Fate, ...]:
        """The fates of a kind, of all requests or one sort of them."""
        return tuple(f for f in self.fates if f.kind == kind and sort in ("", f.sort))

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of requests of each sort with each fate."""
        counts = Counter((fate.sort, fate.kind) for fate in self.fates)
        sorts = sorted({sort for sort, _ in counts})
        return {sort: {kind: counts[sort, kind] for kind in FATES} for sort in sorts}

    def reasons(self) -> dict[str, int]:
        """How many requests failed, were refused or were executed twice, for which reason."""
        kinds = (FAILED, REFUSED, TWICE)
        reasons = (f"{f.sort} {f.kind}: {f.reason}" for f in self.fates if f.kind in kinds)
        return dict(Counter(reasons).most_common())

    def problems(self) -> list[str]:
        """The unexplained requests: the number of each sort, at which servers, when, and why."""
        alike: dict[tuple[str, str, str], list[Fate]] = {}
        for fate in self.unexplained:
            key = fate.sort, ", ".join(fate.servers) or "no server", fate.reason
            alike.setdefault(key, []).append(fate)
        return [
            f"{len(fates):,} {sort} at {servers}, {self._when(fates)}: {reason}"
            for (sort, servers, reason), fates in alike.items()
        ]

    def _when(self, fates: Sequence[Fate]) -> str:
        """When requests were sent, in seconds after the start."""
        moments = [fate.at - self.began for fate in fates if fate.at]
        if not moments:
            return "never sent"
        first, last = min(moments), max(moments)
        return f"at {first:.1f} s" if last - first < 0.1 else f"from {first:.1f} to {last:.1f} s"

    def as_dict(self) -> dict[str, Any]:
        """Return the fates as plain values, for JSON; it lists only the unexplained ones."""
        return {
            "holds": self.holds,
            "requests": len(self.fates),
            "fates": self.counts(),
            "reasons": self.reasons(),
            "problems": self.problems(),
            "unexplained": [str(fate) for fate in self.unexplained],
        }

    def __str__(self) -> str:
        head = f"{'PASS' if self.holds else 'FAIL'}  {len(self.fates):,} requests"
        rows = [
            f"  {sort:<7} " + ", ".join(f"{count:,} {kind}" for kind, count in row.items() if count)
            for sort, row in self.counts().items()
        ]
        reasons = [f"  {count:,} times {reason}" for reason, count in self.reasons().items()]
        problems = [f"  unexplained: {problem}" for problem in self.problems()]
        examples = [f"    {fate}" for fate in self.unexplained[:5]]
        return "\n".join([head, *rows, *reasons, *problems, *examples])


def of_record(record: Record) -> Call:
    """A client's record as a Call; one that was never sent begins and ends when it was due."""
    sent = record.due if record.sent is None else record.sent
    end = sent if record.end is None else record.end
    error = "" if record.error.startswith("http_") else record.error
    status, code = record.status or 0, _ERROR_CODE.search(record.detail)
    return Call(
        *(record.id, record.method, sent, end, status, error, record.stream),
        code=code[1] if code else "",
    )


def named_by_tenure(
    hits: Iterable[Hit | Unproxied], tenures: Iterable[Tenure]
) -> Iterator[Hit | Unproxied]:
    """Yield the hits with each address replaced by the backend that had it at that moment.

    nginx may have meant another backend: it keeps the address that a name had when it was resolved.
    """
    owners: dict[str, list[tuple[float, str]]] = {}
    for tenure in sorted(tenures, key=attrgetter("since")):
        owners.setdefault(tenure.address, []).append((tenure.since, tenure.backend))
    for hit in hits:
        if isinstance(hit, Unproxied):
            yield hit
            continue
        tried = zip(hit.upstream_addr, _moments(hit), strict=True)
        names = tuple(_owner(owners.get(name, ()), moment) or name for name, moment in tried)
        yield structs.replace(hit, upstream_addr=names)


def _moments(hit: Hit) -> Iterator[float]:
    """The time at which each attempt was connected, or began if it never connected."""
    now = hit.msec - hit.request_time
    for index in range(len(hit.upstream_addr)):
        yield now + (value_at(hit.upstream_connect_time, index) or 0.0)
        now += value_at(hit.upstream_response_time, index) or 0.0


def _owner(tenures: Sequence[tuple[float, str]], moment: float) -> str:
    """The backend that had an address at a moment, or had it first; "" for an unknown address."""
    last = bisect_right(tenures, moment, key=lambda tenure: tenure[0]) - 1
    return tenures[max(last, 0)][1] if tenures else ""


def possibly_lost_lines(calls: Iterable[Call], faults: Iterable[Fault]) -> int:
    """Count the successful calls whose log lines a killed service may have lost."""
    fatal = [fault for fault in faults if fault.loses_log_lines]
    good = (call for call in calls if not call.failed)
    return sum(any(f.could_affect(f.target, call.sent, call.end) for f in fatal) for call in good)


def explain_lost_lines(
    findings: Iterable[Finding], calls: Iterable[Call], faults: Sequence[Fault]
) -> Iterator[Finding]:
    """Yield the findings of a join; those that a kill may have caused get it as their reason."""
    fatal = [fault for fault in faults if fault.loses_log_lines]
    by_id = {call.id: call for call in calls}
    for finding in findings:
        call = by_id.get(finding.id)
        if finding.reason or call is None:
            yield finding
            continue
        reasons = [str(f) for f in fatal if f.could_affect(f.target, call.sent, call.end)]
        yield replace(finding, reason=reasons[0]) if reasons else finding


def account(
    calls: Iterable[Call],
    hits: Iterable[Hit | Unproxied],
    entries: Iterable[Entry],
    faults: Sequence[Fault],
    rules: Rules,
    began: float = 0.0,
    foreign: Iterable[Hit | Unproxied] = (),
) -> Ledger:
    """Give every request its one fate; servers in `hits` are named as `entries` name backends.

    `foreign` requests get no fate, but count towards a server's `max_conns`.
    A request is unexplained if no client sent it, if it was logged twice, or if its logs contradict
    each other. So is a failure that no fault explains, even if a retry succeeded.
    """
    by_id = _entries_by_id(calls, hits, entries)
    own = (hit for _, lines, _ in by_id.values() for hit in lines)
    in_flight = InFlight(chain(own, foreign))
    fates = (_fate(id_, *sides, faults, rules, in_flight) for id_, sides in by_id.items())
    return Ledger(tuple(fates), began)


_Sides: TypeAlias = tuple[list[Call], list[Hit | Unproxied], list[Entry]]


def _entries_by_id(
    calls: Iterable[Call], hits: Iterable[Hit | Unproxied], entries: Iterable[Entry]
) -> dict[str, _Sides]:
    """Each request id with its entries in every log, the clients' requests first."""
    by_id: dict[str, _Sides] = {}
    for call in calls:
        by_id.setdefault(call.id, ([], [], []))[0].append(call)
    for hit in hits:
        by_id.setdefault(hit.request_id, ([], [], []))[1].append(hit)
    for entry in entries:
        by_id.setdefault(entry.id, ([], [], []))[2].append(entry)
    return by_id


def _fate(
    id_: str,
    calls: Sequence[Call],
    hits: Sequence[Hit | Unproxied],
    entries: Sequence[Entry],
    faults: Sequence[Fault],
    rules: Rules,
    in_flight: InFlight,
) -> Fate:
    """The one fate of a request id."""
    attempts = tuple(attempt for hit in hits for attempt in _attempts(hit))
    where = tuple(dict.fromkeys([*(a.server for a in attempts), *(e.backend for e in entries)]))
    if len(calls) != 1:
        return Fate(id_, "?", UNEXPLAINED, where, "sent twice" if calls else "no client sent it")
    case = _Case(calls[0], tuple(hits), tuple(entries), attempts, faults, rules, in_flight)
    return Fate(id_, case.call.sort, *case.fate(where), at=case.call.sent)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One server that nginx tried: its status, and whether the request was sent there.

    `sent` is true also if the log does not prove it, because the connection was reset at once.
    """

    server: str
    status: int | None
    sent: bool
    proven: bool


def _attempts(hit: Hit | Unproxied) -> Iterator[_Attempt]:
    if isinstance(hit, Unproxied):
        return
    for index, server in enumerate(hit.upstream_addr):
        sent = value_at(hit.upstream_connect_time, index) is not None
        proven = sent and not reset_at_once(hit, index)
        yield _Attempt(server, value_at(hit.upstream_status, index), sent, proven)


@dataclass(frozen=True, slots=True)
class _Case:
    """One request with its entries in every log, and the faults and rules to judge it by."""

    call: Call
    hits: tuple[Hit | Unproxied, ...]
    entries: tuple[Entry, ...]
    attempts: tuple[_Attempt, ...]
    faults: Sequence[Fault]
    rules: Rules
    in_flight: InFlight

    def fate(self, where: tuple[str, ...]) -> tuple[str, tuple[str, ...], str]:
        """The request's fate, the servers concerned (`where` names all of them), and why."""
        if problem := self.contradiction() or self.unexplained_failure():
            return UNEXPLAINED, where, problem
        if len(begun := self.begun()) > 1:
            return TWICE, begun, self.reason()
        if self.call.failed:
            return REFUSED if self._is_refused() else FAILED, where, self.reason()
        if len(self.attempts) > 1:
            return RETRIED, where, self.reason()
        return ONCE, where, ""

    def _is_refused(self) -> bool:
        """Whether a limit refused the request: nginx's, a server's max_conns or its queue's."""
        if self.attempts and self._no_live():
            return any(self._at_max_conns(server) for server in self.rules.servers)
        if self.attempts:
            return self._queue_was_full(self.attempts[-1])
        return bool(self.hits) and self.call.status == NGINX_REFUSES

    def _queue_was_full(self, attempt: _Attempt) -> bool:
        """Whether the server refused an attempt because its queue was full."""
        entries = (entry for entry in self.entries if entry.backend == attempt.server)
        return any(e.fate == QUEUE_FULL and e.status == attempt.status for e in entries)

    def begun(self) -> tuple[str, ...]:
        """The backends that started the request: by their journals, or where nginx sent it.

        A killed backend loses its journal line. The request may have been started there, so it
        counts. An entry that is a plain error means that the backend did not start the request.
        """
        journalled = Counter(entry.backend for entry in self.entries)
        sent = Counter(
            attempt.server
            for attempt in self.attempts
            if attempt.proven or (attempt.sent and self._may_be_repeated())
        )
        lost = [name for name, count in sent.items() for _ in range(count - journalled[name])]
        was_refused = (
            entry.fate == QUEUE_FULL or (entry.status >= 500 and entry.fate == "ok")
            for entry in self.entries
        )
        pairs = zip(self.entries, was_refused, strict=True)
        started = [entry.backend for entry, refused in pairs if not refused]
        return (*lost, *started)

    def contradiction(self) -> str:
        """A contradiction between the logs; "" if there is none."""
        if len(self.hits) > 1:
            return "nginx logged it twice"
        if not self.hits and not self.call.failed and not self._was_killed(NGINX):
            return "answered, but nginx did not log it"
        if self.hits and not self.call.failed and self.hits[0].status != self.call.status:
            return f"the client got {self.call.status}, nginx sent {self.hits[0].status}"
        journalled = {entry.backend for entry in self.entries}
        not_tried = journalled - {attempt.server for attempt in self.attempts}
        if not_tried and (self.hits or not self._was_killed(NGINX)):
            names = ", ".join(sorted(not_tried))
            return f"nginx never sent it to {names}" if self.hits else "nginx did not log it"
        for attempt in self.attempts:
            if (
                attempt.proven
                and attempt.server not in journalled
                and not self._explains_missing_line(attempt)
            ):
                return f"{attempt.server} did not log it"
        again = any(attempt.proven for attempt in self.attempts[:-1])
        if again and not self._may_be_repeated():
            return "retried after it was sent, although non_idempotent is off"
        return ""

    def _may_be_repeated(self) -> bool:
        """Whether nginx may send the request again after it was sent."""
        return self.call.method in REPEATABLE or self.rules.non_idempotent

    def unexplained_failure(self) -> str:
        """The first failure that no fault explains; "" if there is none."""
        for blamed, symptom in self._failures():
            if not self._explanation(blamed, symptom):
                who = " or ".join(blamed) or "every server"
                failure = self.call.error or f"{self.call.status} {self.call.code}".strip()
                return f"{symptom} ({failure}), and no fault of {who} explains it"
        return ""

    def reason(self) -> str:
        """The faults behind the request's failures, in their order."""
        explanations = (self._explanation(*failure) for failure in self._failures())
        return ", ".join(dict.fromkeys(explanations))

    def _failures(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Each failure: the servers that may have caused it (none: all), and how it appeared."""
        for attempt in self.attempts[:-1]:
            yield (attempt.server,), self._symptom(attempt)
        if not self.call.failed:
            return
        if not self.attempts:
            yield (NGINX,), _client_symptom(self.call)
            return
        last = self.attempts[-1]
        if self._no_live():
            yield (), NO_LIVE
        elif self.call.error:
            yield (last.server, NGINX), _client_symptom(self.call)
        else:
            yield (last.server,), self._symptom(last)

    def _no_live(self) -> bool:
        """Whether nginx found no server for the last attempt; it logs the upstream's name then."""
        return self.attempts[-1].server not in self.rules.servers

    def _symptom(self, attempt: _Attempt) -> Failure:
        """How a failed attempt appeared to nginx."""
        if attempt.status in {e.status for e in self.entries if e.backend == attempt.server}:
            return Failure.ERROR
        return Failure.TIMEOUT if attempt.status in (504, None) else Failure.BROKEN

    def _explanation(self, blamed: tuple[str, ...], symptom: str) -> str:
        """The fault behind a failure; "" if there is none."""
        if full := [
            a.server for a in self.attempts if a.server in blamed and self._queue_was_full(a)
        ]:
            return f"queue limit of {full[0]}"
        if not self.attempts and self._is_refused():
            return NGINX_LIMIT
        if not blamed:
            servers = sorted(self.rules.servers, key=lambda name: (len(name), name))
            outages = [self._outage(server) for server in servers]
            return f"{symptom}: {', '.join(dict.fromkeys(outages))}" if all(outages) else ""
        for server in blamed:
            for fault in self._faults_of(server):
                if symptom in fault.failures:
                    return f"{symptom} by {fault}"
        return ""

    def _outage(self, server: str) -> str:
        """Why nginx could not pick a server: its fault, max_conns or down; "" if unknown."""
        since = self.call.sent - self.rules.fail_timeout
        failing = (f for f in self.faults if f.failures or f.kind == REMOVAL)
        if fault := next(
            (f for f in failing if f.could_affect(server, since, self.call.end)), None
        ):
            return str(fault)
        if server in self.rules.down:
            return f"{server} is down in the config"
        return self._at_max_conns(server)

    def _at_max_conns(self, server: str) -> str:
        """The server's max_conns if it had that many requests; else ""."""
        limit = self.rules.max_conns.get(server, 0)
        moment = self.hits[0].msec  # nginx ends a request at once where no server is live
        reached = limit and self.in_flight.most(server, moment) >= limit
        return f"max_conns={limit} of {server}" if reached else ""

    def _faults_of(self, server: str) -> Iterator[Fault]:
        """The faults that could affect this request at a server."""
        return (f for f in self.faults if f.could_affect(server, self.call.sent, self.call.end))

    def _was_killed(self, server: str) -> bool:
        """Whether a service was killed while it had this request, so that its log line is lost."""
        return any(fault.loses_log_lines for fault in self._faults_of(server))

    def _explains_missing_line(self, attempt: _Attempt) -> bool:
        """Whether a fault explains that a server did not log what nginx sent to it.

        A kill loses the line. A server that was disconnected or frozen, or that closed its
        connection at that moment, never read the request; then the attempt failed.
        """
        if self._was_killed(attempt.server):
            return True
        failed = attempt.status is None or attempt.status >= 500
        return failed and any(
            fault.failures & {Failure.BROKEN, Failure.TIMEOUT}
            for fault in self._faults_of(attempt.server)
        )


SEEN_BY_CLIENT = {
    "timeout": Failure.TIMEOUT,
    "cut": Failure.TIMEOUT,
    "malformed": Failure.MALFORMED,
}


def _client_symptom(call: Call) -> Failure:
    """How a failure appeared to the client."""
    return SEEN_BY_CLIENT.get(call.error, Failure.BROKEN)
