"""Count which server answered how often."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import UsageError
from .access_log import DOCKER_FILE, IN_JOURNAL, Hit, addresses, plain, record, unwrapped
from .log_file import opened

_BLOCK = 1 << 18  # bytes read at a time: more is no faster, and a log is never held whole
_LONGEST = 1 << 20  # bytes kept of one line: its end, where the address stands
_NUMBERS = 10  # malformed lines named by number
_TO = b" to: "
_JSON = b':"', b': "'  # how the tails of plain JSON lines begin
_TAIL = re.compile(rb"^.*(?<!\S)to:(?:[ \t]+(.*))?$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Split:
    """The number of hits of each server, in natural order: backend-2 before backend-10."""

    counts: Mapping[str, int]

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> "Split":
        """Make a split from counts, in natural order."""
        return cls({server: counts[server] for server in sorted(counts, key=_natural)})

    @property
    def total(self) -> int:
        """The number of hits of all servers."""
        return sum(self.counts.values())

    def named(self, names: Mapping[str, str]) -> "Split":
        """Replace addresses by names; addresses of one name count together."""
        counts: Counter[str] = Counter()
        for server, hits in self.counts.items():
            counts[names.get(server, server)] += hits
        return Split.of(counts)

    def __str__(self) -> str:
        return ", ".join(f"{server}: {hits}" for server, hits in self.counts.items())


@dataclass(frozen=True, slots=True)
class Count:
    """The count of a log: every line is in `split`, `not_proxied` or `malformed`.

    `split` counts the last server that each request was passed to (the upstream's own name if
    nginx logged "no live upstreams"), `attempts` the servers that were tried before and failed.
    `malformed_lines` are the numbers, counted from 1, of the first ten malformed lines.
    """

    split: Split
    attempts: Split
    not_proxied: int = 0
    malformed: int = 0
    malformed_lines: tuple[int, ...] = ()

    @property
    def lines(self) -> int:
        """The number of lines of the log."""
        return self.split.total + self.not_proxied + self.malformed

    def named(self, names: Mapping[str, str]) -> "Count":
        """Replace addresses by names."""
        return Count(
            self.split.named(names),
            self.attempts.named(names),
            self.not_proxied,
            self.malformed,
            self.malformed_lines,
        )

    def as_dict(self) -> dict[str, Any]:
        """Give the count as plain values, for JSON."""
        return {
            "split": dict(self.split.counts),
            "total": self.split.total,
            "attempts": dict(self.attempts.counts),
            "not_proxied": self.not_proxied,
            "malformed": self.malformed,
            "malformed_lines": list(self.malformed_lines),
        }

    def __str__(self) -> str:
        return "\n".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        yield str(self.split) or "no hits"
        if self.attempts.total:
            yield f"failed attempts: {self.attempts}"
        if self.not_proxied:
            yield f"not proxied: {self.not_proxied}"
        if self.malformed:
            yield f"malformed: {self.malformed} ({self.places})"

    @property
    def places(self) -> str:
        """Which lines are malformed: `line 3`."""
        word = "line" if self.malformed == 1 else "lines"
        more = ", …" if self.malformed > len(self.malformed_lines) else ""
        return f"{word} {', '.join(map(str, self.malformed_lines))}{more}"


def split(hits: Iterable[Hit]) -> Split:
    """Count hits by the server that answered: the last one tried."""
    return Split.of(Counter(hit.upstream_addr[-1] for hit in hits if hit.upstream_addr))


def count(stream: BinaryIO) -> Count:
    """Count any log, block by block: lines that end in `to: ADDRESS`, JSON lines, or both mixed.

    Memory grows with the number of servers, not with the log.
    """
    tally = _Tally()
    for lines in _blocks(stream):
        tally.add(lines)
    return tally.count()


def count_file(path: str = "-") -> Count:
    """Count a log file, or stdin for "-"; UsageError if it cannot be read."""
    where = "stdin" if path == "-" else f'"{path}"'
    try:
        with opened(path) as stream:
            counted = count(stream)
    except FileNotFoundError:
        raise UsageError(
            f"no such log: {where}", "name a file, or pipe one: … | lab split"
        ) from None
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"log {where} cannot be read: {reason}", "name a file, or pipe one: … | lab split"
        ) from None
    if not counted.lines:
        raise UsageError(f"log {where} is empty: nothing to count", "send traffic first: lab ab")
    if counted.malformed == counted.lines:
        fault = f"no line of log {where} names a server: malformed {counted.places}"
        raise UsageError(fault, "lines that end in to: ADDRESS, or JSON lines with upstream_addr")
    return counted


class _Tally:
    """The counting of a log.

    Nearly every line ends like an earlier one. So only the tails of lines are counted, block by
    block, and only a new tail is parsed. The tail of a plain JSON line is the value of
    upstream_addr.
    """

    def __init__(self) -> None:
        self._lines = 0
        self._known: dict[bytes, tuple[str, ...]] = {}
        self._tried: Counter[tuple[str, ...]] = Counter()
        self._malformed = 0
        self._numbers: list[int] = []
        self._plain: re.Pattern[bytes] | None = None

    def add(self, lines: list[bytes]) -> None:
        tails = self._tails(lines)
        counts = Counter(tails)
        new = counts.keys() - self._known.keys()
        for tail in counts.keys() - new:
            self._tried[self._known[tail]] += counts[tail]
        if new:
            for number, (line, tail) in enumerate(zip(lines, tails, strict=True), self._lines + 1):
                if tail in new:
                    self._read(number, line, tail)
        self._lines += len(lines)

    def _tails(self, lines: list[bytes]) -> list[bytes]:
        if self._plain is None:
            return [line[line.rfind(_TO) :] for line in lines]
        fullmatch = self._plain.fullmatch
        return [
            match[1] if (match := fullmatch(line)) else line[line.rfind(_TO) :] for line in lines
        ]

    def _read(self, number: int, line: bytes, tail: bytes) -> None:
        tried = self._known.get(tail)
        if tried is None and (tried := _text_tried(line)) is not None and tail.startswith(_TO):
            self._known[tail] = tried
        if tried is None and (tried := _json_tried(line)) is not None:
            if tail.startswith(_JSON):
                self._known[tail] = tried
            elif not self._lines:  # a log whose first block has no plain line has hardly any
                self._plain = self._plain or plain(line)
        if tried is not None:
            self._tried[tried] += 1
            return
        self._malformed += 1
        if len(self._numbers) < _NUMBERS:
            self._numbers.append(number)

    def count(self) -> Count:
        answered: Counter[str] = Counter()
        failed_attempts: Counter[str] = Counter()
        for tried, requests in self._tried.items():
            if tried:
                answered[tried[-1]] += requests
            for server in tried[:-1]:
                failed_attempts[server] += requests
        return Count(
            Split.of(answered),
            Split.of(failed_attempts),
            self._tried[()],
            self._malformed,
            tuple(self._numbers),
        )


def _text_tried(line: bytes) -> tuple[str, ...] | None:
    """Every server in the tail of a text line, in order; None without `to: ADDRESS` at its end."""
    tail = _TAIL.match(line)
    if not tail:
        return None
    try:
        return addresses((tail[1] or b"").decode("utf-8", "surrogateescape").strip())
    except ValueError:
        return None


def _json_tried(line: bytes) -> tuple[str, ...] | None:
    """Every server in a line of the lab's JSON log, in order; None if it is not such a line."""
    entry = record(line)
    if entry is None:
        return None
    return entry.upstream_addr if isinstance(entry, Hit) else ()


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: runs of digits by value, the rest as text."""
    parts = re.split(r"([0-9]+)", name)
    digits = [part.lstrip("0") if at % 2 else "" for at, part in enumerate(parts)]
    return [(len(run), run or part) for run, part in zip(digits, parts, strict=True)]


def _blocks(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines of a stream, some thousand at a time."""
    rest = b""
    while block := stream.read(_BLOCK):
        text = rest + block
        lines = text.split(b"\n")
        rest = lines.pop()[-_LONGEST:]
        wrapped = DOCKER_FILE in text or IN_JOURNAL in text
        if lines:
            yield [unwrapped(line).rstrip(b"\n") for line in lines] if wrapped else lines
    if rest:
        yield [unwrapped(rest).rstrip(b"\n")]
