"""One request as the client saw it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import UsageError
from . import typed


@dataclass(frozen=True, slots=True)
class Record:
    """One request as the client saw it, whether it succeeded or not.

    Times are seconds since the epoch, on one monotonic clock for the whole run; None if the request
    did not get that far. `due` is when the request should have been sent, `sent` when it was,
    `end` the time of its last byte or its failure. `token_times` has the time of each token
    received (empty without a stream), `first_token` the first of them. `tokens` counts the tokens
    received: those of the stream, else those in `usage` (None if the answer has no usage).
    `completion_tokens`, `prompt_tokens` and `cached_tokens` come from the server's `usage`, None
    if it lacks them.

    `error` is "" or the kind of failure: connect, timeout, reset, truncated, malformed,
    stream_error (an error event in the stream), http_3xx, http_4xx, http_5xx, unsent (the limit of
    open requests was reached) or cut (the run's time was over). `detail` describes it.
    `truncated`: the response began but its end ([DONE], for a stream) never came. `key` is the hash
    key of the request as it was sent, by the claimed config, one character for each byte; None if
    it is unknown.
    """

    number: int
    id: str
    due: float
    sent: float | None = None
    first_token: float | None = None
    token_times: tuple[float, ...] = ()
    end: float | None = None
    tokens: int | None = 0
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    status: int | None = None
    error: str = ""
    detail: str = ""
    backend: str = ""
    upstream: str = ""
    truncated: bool = False
    stream: bool = True
    max_tokens: int = 0
    client_ip: str = ""
    tenant: int = 0
    session: int = 0
    turn: int = 0
    method: str = "POST"
    key: str | None = None


def write(records: Iterable[Record], file: Path) -> None:
    """Write records as JSON, one per line."""
    with file.open("w") as lines:
        lines.writelines(json.dumps(asdict(record)) + "\n" for record in records)


def read(file: Path) -> tuple[Record, ...]:
    """Read the records of `write`; a UsageError names file, line and field of an invalid one."""
    with file.open("rb") as lines:
        return tuple(_record(line, file, number) for number, line in enumerate(lines, 1))


def _record(line: bytes, file: Path, number: int) -> Record:
    try:
        return typed.read(Record, line)
    except typed.MisfitError as error:
        raise UsageError(f"{file}:{number} is not a client's record: {error}") from None
