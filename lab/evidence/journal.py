"""The backends' journals: one line per request at a backend."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from . import typed
from .access_log import LATEST, Malformed


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One line of a backend's journal: one request at that backend.

    `start` and `t`, its end, are seconds since the epoch, `duration` the seconds between them on a
    steady clock. `fate` is ok, client_gone, dropped, refused (a full queue) or failed. The tokens
    are None for a request that is not an LLM call: `completion_tokens` were generated,
    `tokens_sent` sent. `queued` is how many seconds it waited before it ran, `late` the longest
    delay of one of its tokens behind the engine's model.
    """

    id: str
    backend: str
    start: float = 0.0
    t: float = 0.0
    duration: float = 0.0
    status: int = 0
    fate: str = ""
    method: str = ""
    path: str = ""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_sent: int | None = None
    queued: float | None = None
    ttft: float | None = None
    late: float | None = None
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Journal:
    """All backends' lines: the requests, and the lines without a request."""

    entries: tuple[Entry, ...]
    malformed: tuple[Malformed, ...] = ()


def read(lines: Iterable[bytes]) -> Journal:
    """Read the backends' lines, with or without the prefix that `docker compose logs` puts.

    A line that is not an entry is kept as Malformed, with its number; empty lines are skipped.
    """
    entries: list[Entry] = []
    malformed: list[Malformed] = []
    for number, line in enumerate(lines, 1):
        entry = _entry(line)
        if entry:
            entries.append(entry)
        elif line.strip():
            malformed.append(Malformed(number, line[:200].decode(errors="replace").rstrip()))
    return Journal(tuple(entries), tuple(malformed))


def served(entries: Iterable[Entry]) -> Mapping[str, tuple[float, float]]:
    """When each request arrived at its backend and when its response had been sent, in s, by id.

    A damaged line without valid times is ignored.
    """
    return {
        entry.id: (entry.start, entry.t)
        for entry in entries
        if entry.id and 0 < entry.start <= entry.t < LATEST
    }


def _entry(line: bytes) -> Entry | None:
    """The entry on a line, None if there is none."""
    start = line.find(b"{")
    if start < 0:
        return None
    try:
        return typed.read(Entry, line[start:])
    except typed.MisfitError:
        return None
