"""The article's stress test: many calls at once, all answered, and by whom."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ..errors import UsageError
from ..evidence.split import Split
from .clients import TIMEOUT, AsyncClient, CallError, chat_call, completions_call


@dataclass(frozen=True, slots=True)
class StressReport:
    """What became of the calls: each was answered, or failed in a way that is named.

    `sent` and `answered` count calls by kind (chats, completions, streams), `failures` by kind and
    reason ("chats, status 502"), with one example of each in `examples`. `split` counts the
    answers by server. `pieces` is how many pieces of text the streams brought.
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


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one call."""

    kind: str
    server: str = ""
    pieces: int = 0
    failure: str = ""
    message: str = ""


def stress(
    base_url: str,
    chats: int = 100,
    completions: int = 100,
    streams: int = 0,
    timeout: float = TIMEOUT,
) -> StressReport:
    """Make all calls at once and wait for every one; a call that fails is counted, never raised."""
    return asyncio.run(stress_async(base_url, chats, completions, streams, timeout))


async def stress_async(
    base_url: str,
    chats: int = 100,
    completions: int = 100,
    streams: int = 0,
    timeout: float = TIMEOUT,
) -> StressReport:
    """Do as `stress` does, within a running event loop."""
    sent = {"chats": chats, "completions": completions, "streams": streams}
    if min(sent.values()) < 0:
        raise UsageError(f"a number of calls below zero: {min(sent.values())}")
    async with AsyncClient(base_url, timeout) as client:
        started = perf_counter()
        outcomes = await asyncio.gather(*_calls(client, sent))
        return _report(sent, outcomes, perf_counter() - started)


def _calls(client: AsyncClient, sent: Mapping[str, int]) -> Iterator[Awaitable[_Outcome]]:
    """Yield the calls, a kind in turn with the other while both last, as the article sends them."""
    for turn in range(max(sent.values())):
        for kind, number in sent.items():
            if turn < number:
                yield _call(client, kind)


async def _call(client: AsyncClient, kind: str) -> _Outcome:
    try:
        if kind == "streams":
            return await _stream(client)
        call = chat_call("test message") if kind == "chats" else completions_call("test text")
        return _Outcome(kind, (await client.send(call)).server)
    except CallError as error:
        return _Outcome(kind, failure=f"{kind}, {error.kind}", message=error.message)


async def _stream(client: AsyncClient) -> _Outcome:
    server, pieces = "", 0
    async for piece in client.chat_stream("test message"):
        server, pieces = piece.server, pieces + 1
    return _Outcome("streams", server, pieces)


def _report(sent: Mapping[str, int], outcomes: list[_Outcome], seconds: float) -> StressReport:
    answered = [outcome for outcome in outcomes if not outcome.failure]
    failed = [outcome for outcome in outcomes if outcome.failure]
    return StressReport(
        sent=sent,
        answered=Counter(outcome.kind for outcome in answered),
        split=Split.of(Counter(outcome.server or "unnamed" for outcome in answered)),
        failures=Counter(outcome.failure for outcome in failed),
        examples={outcome.failure: outcome.message for outcome in failed},
        pieces=sum(outcome.pieces for outcome in outcomes),
        seconds=seconds,
    )
