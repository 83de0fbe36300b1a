"""Join the records of client, nginx and backends by request."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from ..evidence.access_log import Hit, Unproxied
from ..evidence.journal import Entry
from ..evidence.record import Record

Line: TypeAlias = Hit | Unproxied

CLIENT, NGINX, BACKENDS = "client", "nginx", "backends"


@dataclass(frozen=True, slots=True)
class Row:
    """One request id and its entries in every log; `record` is None if no client has it."""

    id: str
    record: Record | None = None
    hits: tuple[Line, ...] = ()
    entries: tuple[Entry, ...] = ()

    @property
    def answering(self) -> Entry | None:
        """The entry of the backend that answered: the one in the client's record, else the last."""
        named = [e for e in self.entries if self.record and e.backend == self.record.backend]
        return max(named or self.entries, key=lambda entry: entry.t, default=None)


@dataclass(frozen=True, slots=True)
class Finding:
    """A disagreement between two logs about a request, or its absence from one.

    `kind` is one of
      client only, nginx only, backend only          the only log that has it
      not at the client, not at nginx, not at a backend   the only log that lacks it
      twice at the client, twice at nginx, twice at backends
      no id at nginx, no id at a backend             a line that names no request
      tokens lost      the backend sent more than the client received
      tokens gained    the client received more than the backend sent
      tokens unsent    the backend generated more than it sent
      tokens unknown   the answer did not state its number of tokens
      usage disagrees, status disagrees, backend disagrees
    `reason` is the failure that explains it, "" if none does. `tokens` is the number concerned.
    """

    kind: str
    id: str
    detail: str
    reason: str = ""
    tokens: int = 0

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"{self.kind}: {self.id or 'no id'}: {self.detail}{why}"


@dataclass(frozen=True, slots=True)
class Joined:
    """Every request once, the clients' in the order of their numbers, and the findings.

    `sides` names the available logs: client, and nginx and backends if their logs are known.
    """

    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = ()
    sides: frozenset[str] = frozenset({CLIENT})

    @property
    def unexplained(self) -> tuple[Finding, ...]:
        """The findings that no failure explains."""
        return tuple(finding for finding in self.findings if not finding.reason)

    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())


def join(
    records: Iterable[Record],
    hits: Iterable[Line] | None = None,
    entries: Iterable[Entry] | None = None,
) -> Joined:
    """Join the three logs by request id; None for a log that is not available.

    Every record, hit and entry is in a row or, if it has no id, in a separate finding.
    """
    tables = _Tables()
    for record in sorted(records, key=lambda record: record.number):
        tables.records.setdefault(record.id, []).append(record)
    for hit in hits or ():
        tables.hits.setdefault(_id(hit.request_id), []).append(hit)
    for entry in entries or ():
        tables.entries.setdefault(_id(entry.id), []).append(entry)
    given = {CLIENT: True, NGINX: hits is not None, BACKENDS: entries is not None}
    sides = frozenset(side for side, known in given.items() if known)
    nameless = tuple(_without_id(tables))
    rows = tuple(_rows(tables))
    findings = (finding for row in rows for finding in _findings(row, sides))
    return Joined(rows, (*nameless, *_repeated(tables), *findings), sides)


@dataclass(frozen=True, slots=True)
class _Tables:
    """The three logs by request id."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    hits: dict[str, list[Line]] = field(default_factory=dict)
    entries: dict[str, list[Entry]] = field(default_factory=dict)


def _id(text: str) -> str:
    return "" if text == "-" else text


def _without_id(tables: _Tables) -> Iterator[Finding]:
    for hit in tables.hits.pop("", ()):
        yield Finding("no id at nginx", "", f"{hit.request_method} {hit.request_uri}")
    for entry in tables.entries.pop("", ()):
        yield Finding("no id at a backend", "", f"{entry.method} {entry.path} at {entry.backend}")


def _rows(tables: _Tables) -> Iterator[Row]:
    for name in dict.fromkeys([*tables.records, *tables.hits, *tables.entries]):
        hits, entries = tables.hits.get(name, ()), tables.entries.get(name, ())
        for record in tables.records.get(name, [None])[:1]:
            yield Row(name, record, tuple(hits), tuple(entries))
        # one id, two requests: entries cannot be assigned, so they stay with the first
        for record in tables.records.get(name, [])[1:]:
            yield Row(name, record)


def _repeated(tables: _Tables) -> Iterator[Finding]:
    for name, records in tables.records.items():
        if len(records) > 1:
            numbers = ", ".join(str(record.number) for record in records)
            yield Finding("twice at the client", name, f"requests {numbers}")


def _findings(row: Row, sides: frozenset[str]) -> Iterator[Finding]:
    yield from _absences(row, sides)
    yield from _repetitions(row)
    if row.record is None:
        return
    yield from _disagreements(row, row.record)
    yield from _unsent(row)
    yield from _abandoned_tokens(row)
    if row.answering is not None:
        yield from _tokens(row.record, row.answering)


_ONLY = {CLIENT: "client only", NGINX: "nginx only", BACKENDS: "backend only"}
_NOT = {CLIENT: "not at the client", NGINX: "not at nginx", BACKENDS: "not at a backend"}


def _absences(row: Row, sides: frozenset[str]) -> Iterator[Finding]:
    has_it = {CLIENT: row.record is not None, NGINX: bool(row.hits), BACKENDS: bool(row.entries)}
    seen = [side for side in has_it if side in sides and has_it[side]]
    missed = [side for side in has_it if side in sides and not has_it[side]]
    if not missed:
        return
    kind = _ONLY[seen[0]] if len(seen) == 1 else _NOT[missed[0]]
    yield Finding(kind, row.id, _entries_text(row), _why_absent(row))


def _entries_text(row: Row) -> str:
    """A request's entries in all logs, as one line of text."""
    record = row.record
    parts = [f"client: {record.error or record.status}"] if record else []
    parts += [f"nginx: {hit.status}" for hit in row.hits]
    parts += [f"{entry.backend}: {entry.fate}" for entry in row.entries]
    return ", ".join(parts)


def _why_absent(row: Row) -> str:
    """The failure that explains why a log lacks a request; "" if there is none."""
    if row.record is None:
        return ""
    refused = [hit.status for hit in row.hits if hit.status >= 400]
    if refused and not row.entries:
        return f"nginx answered {refused[-1]}"
    return f"client: {row.record.error}" if row.record.error else ""


def _repetitions(row: Row) -> Iterator[Finding]:
    if len(row.hits) > 1:
        yield Finding("twice at nginx", row.id, _entries_text(row))
    if len(row.entries) > 1:
        tried = [address for hit in row.hits for address in _tried(hit)]
        reason = f"nginx tried {', '.join(tried)}" if len(tried) > 1 else ""
        yield Finding("twice at backends", row.id, _entries_text(row), reason)


def _tried(hit: Line) -> tuple[str, ...]:
    return hit.upstream_addr if isinstance(hit, Hit) else ()


def _disagreements(row: Row, record: Record) -> Iterator[Finding]:
    at_nginx = {hit.status for hit in row.hits}
    # 499: the client disconnected, whatever status it had received
    if record.status and at_nginx and not at_nginx & {record.status, 499}:
        yield Finding("status disagrees", row.id, _entries_text(row))
    backends = {entry.backend for entry in row.entries}
    if record.backend and backends and record.backend not in backends:
        yield Finding(
            "backend disagrees", row.id, f"client: {record.backend}, {_entries_text(row)}"
        )


def _tokens(record: Record, entry: Entry) -> Iterator[Finding]:
    """Compare the tokens that the backend sent with those that the client received."""
    if entry.tokens_sent is None or entry.completion_tokens is None:
        return
    if record.tokens is None:
        yield Finding("tokens unknown", record.id, f"{entry.tokens_sent} sent", "no usage")
        return
    sent, received = entry.tokens_sent, record.tokens
    detail = f"{entry.backend} sent {sent} tokens, the client received {received}"
    if received < sent:
        yield Finding("tokens lost", record.id, detail, _why_lost(record, entry), sent - received)
    if received > sent:
        yield Finding("tokens gained", record.id, detail, tokens=received - sent)
    if record.completion_tokens not in {None, entry.completion_tokens}:
        detail = f"usage says {record.completion_tokens}, {entry.backend} {entry.completion_tokens}"
        yield Finding("usage disagrees", record.id, detail)


def _why_lost(record: Record, entry: Entry) -> str:
    if record.error:
        return f"client: {record.error}"
    return "" if entry.fate == "ok" else f"{entry.backend}: {entry.fate}"


def _unsent(row: Row) -> Iterator[Finding]:
    for entry in row.entries:
        if entry.completion_tokens is None or entry.tokens_sent is None:
            continue
        unsent = entry.completion_tokens - entry.tokens_sent
        if unsent > 0:
            generated, sent = entry.completion_tokens, entry.tokens_sent
            detail = f"{entry.backend} generated {generated} tokens, sent {sent}"
            reason = "" if entry.fate == "ok" else f"{entry.backend}: {entry.fate}"
            yield Finding("tokens unsent", row.id, detail, reason, unsent)


def _abandoned_tokens(row: Row) -> Iterator[Finding]:
    """Tokens of an attempt that nginx gave up to try another backend."""
    for entry in row.entries:
        if entry is not row.answering and entry.tokens_sent:
            detail = f"{entry.backend} sent {entry.tokens_sent} tokens that no client received"
            reason = f"{entry.backend}: {entry.fate}, another backend answered"
            yield Finding("tokens lost", row.id, detail, reason, entry.tokens_sent)
