"""One JSON line per request: client, result, duration."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from .wire import quote

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True)
class LlmFigures:
    """The fields of an LLM call in its journal line: tokens, and seconds since its arrival.

    `completion_tokens` were generated, `tokens_sent` sent to the client; `queued` and `ttft` are
    None for a call that ended before it had a slot, or a token. `late` is the longest delay of a
    token behind the engine's model, caused by the machine.
    """

    stream: bool = False
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    tokens_sent: int = 0
    queued: float | None = None
    ttft: float | None = None
    late: float = 0.0


@dataclass(slots=True)
class Record:
    """One request; `arrived` is the reading of the performance counter at its arrival.

    `fate` is ok, client_gone (disconnected before the last byte), dropped (cut off by a fault),
    refused (the engine's queue was full) or failed (an error or the stop of the service itself).
    `status` is 0 until a response has begun.
    """

    id: str
    method: str
    path: str
    arrived: float
    status: int = 0
    bytes: int = 0
    fate: str = ""
    llm: LlmFigures | None = None


def line(record: Record, backend: str, end: float, duration: float) -> str:
    """Format a record as one flat JSON object; `end` is epoch seconds, `duration` seconds."""
    text = (
        f'{{"t":{end:.6f},"start":{end - duration:.6f},"id":{quote(record.id)},'
        f'"backend":"{backend}","method":"{record.method}",'
        f'"path":{quote(record.path)},"status":{record.status},"duration":{duration:.6f},'
        f'"bytes":{record.bytes},"fate":"{record.fate}"'
    )
    return text + (_llm(record.llm) if record.llm else "") + "}"


def _llm(figures: LlmFigures) -> str:
    fields = {
        "prompt_tokens": figures.prompt_tokens,
        "cached_tokens": figures.cached_tokens,
        "completion_tokens": figures.completion_tokens,
        "tokens_sent": figures.tokens_sent,
        "queued": _rounded(figures.queued),
        "ttft": _rounded(figures.ttft),
        "late": _rounded(figures.late),
        "stream": figures.stream,
    }
    return "," + _encode(fields)[1:-1]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


class Journal:
    """Buffered journal lines, written in batches.

    `write` takes the text; `soon` schedules a function after a short delay, as `loop.call_later`.
    """

    def __init__(
        self,
        backend: str,
        write: Callable[[str], object],
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self.backend = backend
        self._write = write
        self._soon = soon
        self._lines: list[str] = []

    def add(self, record: Record) -> None:
        """Add the line of a request that ended now."""
        duration = time.perf_counter() - record.arrived
        self._lines.append(line(record, self.backend, time.time(), duration))
        if len(self._lines) == 1:
            self._soon(self.flush)

    def flush(self) -> None:
        """Write all buffered lines."""
        lines, self._lines = self._lines, []
        if lines:
            self._write("\n".join(lines) + "\n")
