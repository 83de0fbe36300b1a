"""The article's stress test: many concurrent calls, and the server that answered each."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ..errors import UsageError
from ..evidence.record import Record
from ..evidence.split import Split
from ..nginxconf.request import Request
from . import sender
from .clients import TIMEOUT, chat_call, completions_call
from .workload import Plan, Planned, User, plain, streamed

AT_ONCE = 1000  # calls in flight; see sender.MOST_OPEN


@dataclass(frozen=True, slots=True)
class StressReport:
    """The results of the calls: each was answered, or failed with a named error.

    `sent` and `answered` count calls by kind (chats, completions, streams), `failures` by kind and
    reason ("chats, status 502"), with one example of each in `examples`. `split` counts the
    answers by server. `pieces` is the number of pieces of text in the streams.
    """

    sent: Mapping[str, int]
    answered: Mapping[str, int]
    split: Split
    failures: Mapping[str, int]
    examples: Mapping[str, str]
    pieces: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every call was answered."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """Give the report as plain values, for JSON."""
        return {
            "sent": dict(self.sent),
            "answered": dict(self.answered),
            "split": dict(self.split.counts),
            "failures": dict(self.failures),
            "examples": dict(self.examples),
            "pieces": self.pieces,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        return "\n".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        sent, answered = sum(self.sent.values()), sum(self.answered.values())
        calls = " + ".join(f"{number} {kind}" for kind, number in self.sent.items() if number)
        yield f"{answered} of {sent} answered in {self.seconds:.2f} s ({calls or 'no calls'})"
        if answered:
            yield str(self.split)
        for reason, times in self.failures.items():
            yield f"failed: {times} {reason}: {self.examples[reason]}"


def stress(
    base_url: str,
    chats: int = 100,
    completions: int = 100,
    streams: int = 0,
    timeout: float = TIMEOUT,
) -> StressReport:
    """Make the calls, AT_ONCE in flight, and wait for each; a failure is counted, never raised."""
    sent = {"chats": chats, "completions": completions, "streams": streams}
    if min(sent.values()) < 0:
        raise UsageError(
            f"the number of calls must not be negative: {min(sent.values())}", "0 or more"
        )
    kinds = list(_in_turn(sent))
    calls = [_planned(number, kind) for number, kind in enumerate(kinds)]
    users = (User(n, 0.0, iter(calls[n::AT_ONCE])) for n in range(min(AT_ONCE, len(calls))))
    started = perf_counter()
    records = sender.run(Plan(users, None, len(calls)), base_url, timeout=timeout)
    return _report(sent, kinds, records, perf_counter() - started)


def _in_turn(sent: Mapping[str, int]) -> Iterator[str]:
    """Yield the kinds of the calls, alternating while there are calls of each kind left."""
    for turn in range(max(sent.values())):
        yield from (kind for kind, number in sent.items() if turn < number)


def _planned(number: int, kind: str) -> Planned:
    """One call of a kind, as the article's clients make it."""
    if kind == "streams":
        message = {"role": "user", "content": "test message"}
        return streamed(number, (message,), max_tokens=16)
    call = chat_call("test message") if kind == "chats" else completions_call("test text")
    headers = {"Content-Type": call.content_type}
    return plain(number, Request(call.path, method="POST", headers=headers, body=call.body))


def _report(
    sent: Mapping[str, int], kinds: Sequence[str], records: Sequence[Record], seconds: float
) -> StressReport:
    calls = list(zip(kinds, records, strict=True))
    failed = [(f"{kind}, {_failure(record)}", record) for kind, record in calls if record.error]
    answered = [(kind, record) for kind, record in calls if not record.error]
    return StressReport(
        sent=sent,
        answered=Counter(kind for kind, _ in answered),
        split=Split.of(Counter(record.backend or "unnamed" for _, record in answered)),
        failures=Counter(failure for failure, _ in failed),
        examples={failure: record.detail for failure, record in failed},
        pieces=sum(len(record.token_times) for _, record in answered),
        seconds=seconds,
    )


def _failure(record: Record) -> str:
    """The kind of a failure: `status 502`, `no connection`, or the sender's name for it."""
    if record.error.startswith("http_"):
        return f"status {record.status}"
    return "no connection" if record.error == "connect" else record.error
