"""An LLM call on its way through the engine: its answers, decided first, and then generated."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Receive

from . import text
from .api_error import ApiError
from .blocks import BLOCK_TOKENS
from .engine import Generation, Request, Token
from .journal import LlmFigures, Record
from .logprobs import Logprobs
from .metrics import Metrics, Times
from .openai_call import Call
from .profiles import Profile
from .runner import Mailbox, Runner
from .settings import Settings


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call of a tool whose arguments are an answer's tokens."""

    id: str
    name: str

    def delta(self, arguments: str) -> dict[str, object]:
        """The call as a message has it."""
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice, known before it is generated: `pieces` are its tokens, in text.

    With `tool`, they are the arguments of that call instead of the message's content.
    """

    index: int
    pieces: tuple[str, ...]
    finish_reason: str
    request: Request
    first_of_prompt: bool
    tool: ToolCall | None = None
    logprobs: Logprobs | None = None


def plan(
    call: Call, settings: Settings, profile: Profile, exact: int | None = None
) -> tuple[Answer, ...]:
    """Decide every choice's tokens; the same call gets the same answer from every backend.

    An answer has `exact` tokens if that is given (at most `max_tokens`), `max_tokens` with
    `ignore_eos`, else its natural length. JSON and tool calls end where the JSON does, or are cut
    at `max_tokens`. Raises ApiError (context_length_exceeded).
    """
    most = min(settings.max_model_len, profile.kv_blocks * BLOCK_TOKENS)
    limits = [_room(call, prompt, most, settings.max_output) for prompt in call.prompts]
    return tuple(
        _answer(call, settings.seed, profile, (number, choice), limits[number], exact)
        for number in range(len(call.prompts))
        for choice in range(call.choices)
    )


def _room(call: Call, prompt: tuple[str, ...], most: int, max_output: int) -> int:
    """Tokens that an answer to this prompt may have, where both may have `most` together."""
    room = most - len(prompt)
    if room >= (call.max_tokens or 1):
        return call.max_tokens or min(room, max_output)
    part, asked = call.part, ""
    if call.max_tokens:
        asked = f" and {call.max_tokens} tokens were asked for in the completion"
    message = (
        f"This model's maximum context length is {most} tokens. However, your "
        f"{part} resulted in {len(prompt)} tokens{asked}. Please reduce the length of the {part}."
    )
    raise ApiError(400, message, part, "context_length_exceeded")


def _answer(
    call: Call,
    seed: int,
    profile: Profile,
    place: tuple[int, int],
    limit: int,
    exact: int | None,
) -> Answer:
    number, choice = place
    prompt = call.prompts[number]
    key = text.key(seed + call.seed, prompt, choice)
    tool = None
    if call.form.is_text:
        pieces, reason = _words(call, key, profile, limit, exact)
    else:
        name, content = call.form.content(key)
        tool = ToolCall(f"call_{key:016x}", name) if name else None
        pieces, reason = _json_pieces(call, content, limit, tool)
    index = number * call.choices + choice
    names = text.blocks((*prompt, *pieces))
    request = Request(len(prompt), len(pieces), names, tag=index)
    logprobs = None if call.logprobs is None else Logprobs(key, call.logprobs, call.chat)
    return Answer(index, pieces, reason, request, choice == 0, tool, logprobs)


def _words(
    call: Call, key: int, profile: Profile, limit: int, exact: int | None
) -> tuple[tuple[str, ...], str]:
    """Make up text; its tokens and the reason of its end."""
    natural = exact or max(text.natural_length(key, profile), call.min_tokens)
    length = limit if call.ignore_eos and not exact else min(natural, limit)
    whole = text.words(key, length)
    pieces = text.cut(whole, call.stops)
    ended = pieces != whole or (natural <= limit and not (call.ignore_eos and not exact))
    return pieces, "stop" if ended else "length"


def _json_pieces(
    call: Call, content: str, limit: int, tool: ToolCall | None
) -> tuple[tuple[str, ...], str]:
    """Cut JSON into tokens up to the limit or a stop text; its tokens and the reason of its end."""
    whole = tuple(text.tokens(content))
    within = whole[:limit]
    if tool:
        return within, "tool_calls" if within == whole else "length"
    pieces = text.cut(within, call.stops)
    return pieces, "length" if pieces == within != whole else "stop"


class Work:
    """One call on its way through the engine, with what the journal and the metrics learn."""

    def __init__(
        self, runner: Runner, metrics: Metrics, record: Record, answers: tuple[Answer, ...]
    ) -> None:
        self.answers = answers
        self.figures = record.llm or LlmFigures()
        self._runner = runner
        self._metrics = metrics
        self._arrived = record.arrived
        self._last_at: dict[Generation, float] = {}

    async def run(
        self,
        receive: Receive,
        deliver: Callable[[Token], Awaitable[None]],
        write: Callable[[Token], bool] = lambda _token: True,
    ) -> bool:
        """Generate, handing on each token; False if the client left, its slots freed at once.

        `write` is the short cut past `deliver`: it returns whether it could send the token.
        """
        requests = [answer.request for answer in self.answers]
        box = self._runner.submit(requests, self._arrived)

        def sink(token: Token) -> bool:
            if self.figures.ttft is None or not write(token):
                return False
            self._observe(token)
            return True

        box.sink = sink
        watcher = asyncio.create_task(self._watch(receive, box))
        try:
            while batch := await box.take():
                for token in batch:
                    self._observe(token)
                    await deliver(token)
        finally:
            watcher.cancel()
            self._runner.cancel(box)
            whole = self._settle(box)
        return whole

    async def _watch(self, receive: Receive, box: Mailbox) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._runner.cancel(box)

    def _observe(self, token: Token) -> None:
        last_at = self._last_at.get(token.generation)
        self._last_at[token.generation] = token.at
        if last_at is not None:
            self._metrics.observe_between(self._runner.real_seconds(token.at - last_at))
        behind = self._runner.behind(token.at)
        if behind > self.figures.late:
            self.figures.late = behind
        if self.figures.ttft is None:
            self.figures.ttft = time.perf_counter() - self._arrived
            self._metrics.observe("time_to_first_token_seconds", self.figures.ttft)

    def _settle(self, box: Mailbox) -> bool:
        figures, metrics = self.figures, self._metrics
        firsts = [
            generation
            for answer, generation in zip(self.answers, box.generations, strict=True)
            if answer.first_of_prompt
        ]
        figures.prompt_tokens = sum(each.request.prompt_tokens for each in firsts)
        figures.cached_tokens = sum(each.cached_tokens for each in firsts)
        figures.completion_tokens = sum(each.produced for each in box.generations)
        figures.queued = self._times(box.generations[0], 0.0).queued
        metrics.prompt_tokens += figures.prompt_tokens
        metrics.generation_tokens += figures.completion_tokens
        metrics.observe("e2e_request_latency_seconds", time.perf_counter() - self._arrived)
        metrics.observe_late(figures.late)
        whole = True
        for answer, generation in zip(self.answers, box.generations, strict=True):
            ended = generation.produced == generation.request.output_tokens
            reason = (
                "stop" if answer.tool and answer.finish_reason != "length" else answer.finish_reason
            )
            # vLLM counts a tool call as stopped
            metrics.finished[reason if ended else "abort"] += 1
            self._count(generation)
            whole = whole and ended
        return whole

    def _count(self, generation: Generation) -> None:
        metrics, request = self._metrics, generation.request
        metrics.observe("request_prompt_tokens", request.prompt_tokens)
        metrics.observe("request_generation_tokens", generation.produced)
        metrics.observe("request_max_num_generation_tokens", request.output_tokens)
        last_at = self._last_at.get(generation, 0.0)
        metrics.observe_times(self._times(generation, last_at), generation.produced)

    def _times(self, generation: Generation, last_at: float) -> Times:
        """The phases of a generation whose last token came at that second of the model."""
        started, first = generation.started, generation.first_token_at
        real = self._runner.real_seconds
        return Times(
            None if started is None else real(max(0.0, started - generation.arrived)),
            None if started is None or first is None else real(first - started),
            None if first is None else real(max(0.0, last_at - first)),
        )

    def usage(self) -> dict[str, object]:
        """The usage of the whole call, in OpenAI's words."""
        prompt, output = self.figures.prompt_tokens, self.figures.completion_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": self.figures.cached_tokens},
        }
