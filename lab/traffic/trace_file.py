"""Read a public trace of LLM requests: Mooncake, BurstGPT, Azure LLM inference.

Formats, as their publishers describe them:
- Mooncake (FAST'25 traces): a JSON object a line with `timestamp` in ms, `input_length` and
  `output_length` in tokens, `hash_ids`: one id for each block of 512 prompt tokens, the same id
  for the same block after the same blocks.
- BurstGPT: CSV with `Timestamp` in seconds, `Request tokens`, `Response tokens`, `Model`; later
  releases add `Session ID` and `Elapsed time`.
- Azure LLM inference (2023 and 2024): CSV with `TIMESTAMP` as date and time (UTC where it names no
  zone), `ContextTokens`, `GeneratedTokens`.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from ..errors import UsageError
from ..evidence.log_file import opened

BLOCK_TOKENS = 512  # of one Mooncake hash id
MOST_TOKENS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a trace: `at` seconds after the first, its tokens, its prompt's blocks.

    `blocks` is empty if the trace does not state what prompts share. `session` is "" if it has
    none.
    """

    at: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    session: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace that was read; `skipped` rows have no answer (0 output tokens)."""

    name: str
    kind: str
    rows: tuple[Row, ...]
    skipped: int

    @property
    def seconds(self) -> float:
        """From the first request to the last."""
        return self.rows[-1].at if self.rows else 0.0

    def described(self) -> dict[str, Any]:
        """The trace in a few plain values."""
        return {
            "name": self.name,
            "format": self.kind,
            "requests": len(self.rows),
            "seconds": round(self.seconds, 3),
            "skipped": self.skipped,
        }


def read(path: str, *, speed: float = 1.0, limit: int | None = None) -> Trace:
    """Read a trace file, compressed or not.

    `speed` 2 sends the requests twice as fast; `limit` keeps that many from the start. UsageError
    names file, line and what is allowed there.
    """
    if not 0 < speed < math.inf:
        raise UsageError(f"--speed {speed:g} is out of range", "a number above 0")
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} is out of range", "1 or more")
    try:
        with opened(path) as packed, TextIOWrapper(packed, "utf-8-sig", newline="") as file:
            kind, rows = _rows(file, path)
            answered, skipped = _answered(rows, limit)
    except (OSError, UnicodeDecodeError) as error:
        damaged = isinstance(error, OSError)
        reason = getattr(error, "strerror", None) or (str(error) if damaged else "not UTF-8 text")
        hint = "a file in a format that docs/llm.md names under traces"
        raise UsageError(f'cannot read trace "{path}": {reason}', hint) from None
    if not answered:
        raise UsageError(f'no request in trace "{path}"', "a trace with at least one request")
    answered.sort(key=lambda row: row.at)
    first = answered[0].at
    moved = [
        Row((row.at - first) / speed, row.input_tokens, row.output_tokens, row.blocks, row.session)
        for row in answered
    ]
    name = re.sub(r"[^\w.-]", "_", Path(path).stem) or "trace"
    return Trace(name, kind, tuple(moved), skipped)


# --- the formats --------------------------------------------------------------------------


def _rows(file: TextIO, path: str) -> tuple[str, Iterator[Row]]:
    """The name of the format, recognised by the first line that is not blank, and the rows."""
    numbered = ((number, line) for number, line in enumerate(file, 1) if line.strip())
    number, first = next(numbered, (1, ""))
    if first.lstrip().startswith("{"):
        return "mooncake", _lines(chain([(number, first)], numbered), path, _mooncake)
    columns = [name.strip() for name in next(csv.reader([first], skipinitialspace=True), [])]
    for kind, needed, reader in _TABLES:
        if needed <= {*columns}:
            return kind, _lines(_table(file, columns, path, number), path, reader)
    raise UsageError(
        f'"{path}" is not a known trace format: its first line is "{first.strip()[:60]}"',
        "Mooncake JSONL, or CSV with "
        + " or ".join(", ".join(sorted(needed)) for _, needed, _ in _TABLES),
    )


def _table(
    file: TextIO, columns: list[str], path: str, header: int
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV after its header, each with the number of its last line."""
    table = csv.DictReader(file, columns, skipinitialspace=True)
    try:
        for row in table:
            yield header + table.line_num, row
    except csv.Error as error:
        raise UsageError(f"{error} in {path}:{header + table.line_num + 1}") from None


def _lines(
    numbered: Iterable[tuple[int, Any]], path: str, reader: Callable[[Any], Row]
) -> Iterator[Row]:
    for number, line in numbered:
        try:
            row = reader(line)
        except (RecursionError, ValueError, TypeError, KeyError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{reason} in {path}:{number}", "see docs/llm.md, traces") from None
        yield row


def _answered(rows: Iterator[Row], limit: int | None) -> tuple[list[Row], int]:
    """The rows that have an answer, at most `limit`, and the number of skipped rows."""
    skipped = 0

    def with_answer() -> Iterator[Row]:
        nonlocal skipped
        for row in rows:
            if row.output_tokens:
                yield row
            else:
                skipped += 1

    return list(islice(with_answer(), limit)), skipped


def _mooncake(line: str) -> Row:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(entry, dict):
        raise TypeError("not a JSON object")
    blocks = entry.get("hash_ids", [])
    if not isinstance(blocks, list) or any(type(block) is not int or block < 0 for block in blocks):
        raise ValueError("hash_ids must be a list of whole numbers from 0")
    tokens = _tokens("input_length", entry["input_length"])
    needed = -(-tokens // BLOCK_TOKENS)
    if blocks and len(blocks) != needed:
        raise ValueError(f"{len(blocks)} hash_ids for {tokens} tokens, expected {needed}")
    return Row(
        _number("timestamp", entry["timestamp"]) / 1000,
        tokens,
        _tokens("output_length", entry["output_length"]),
        tuple(blocks),
    )


def _burstgpt(row: Mapping[str, str]) -> Row:
    return Row(
        _number("Timestamp", row["Timestamp"]),
        _tokens("Request tokens", row["Request tokens"]),
        _tokens("Response tokens", row["Response tokens"]),
        session=(row.get("Session ID") or "").strip(),
    )


def _azure(row: Mapping[str, str]) -> Row:
    text = (row["TIMESTAMP"] or "").strip()
    whole, dot, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :]
    try:
        moment = datetime.fromisoformat(whole + (f".{digits[:6]:0<6}" if dot else "") + zone)
    except ValueError:
        raise ValueError(f'TIMESTAMP "{text[:40]}" is not a date and time') from None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return Row(
        (zoned - EPOCH).total_seconds(),
        _tokens("ContextTokens", row["ContextTokens"]),
        _tokens("GeneratedTokens", row["GeneratedTokens"]),
    )


_TABLES: tuple[tuple[str, frozenset[str], Callable[[Any], Row]], ...] = (
    ("burstgpt", frozenset({"Timestamp", "Request tokens", "Response tokens"}), _burstgpt),
    ("azure", frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"}), _azure),
)


def _number(name: str, value: object) -> float:
    if value is None:
        raise KeyError(name)
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f'{name} "{str(value)[:40]}" is not a number from 0')
    return number


def _tokens(name: str, value: object) -> int:
    number = _number(name, value)
    if number != int(number) or number > MOST_TOKENS:
        raise ValueError(f'{name} "{str(value)[:40]}" is not a whole number up to {MOST_TOKENS:,}')
    return int(number)
