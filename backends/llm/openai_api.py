"""OpenAI's API: models, chat completions and text completions, streamed or whole."""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from . import embedding, text
from .api_error import ApiError
from .blocks import BLOCK_TOKENS
from .engine import Generation, Request, Token
from .journal import LlmFigures, Record
from .logprobs import Logprobs
from .metrics import Metrics, Times
from .openai_call import (
    Call,
    EmbeddingCall,
    parse_chat,
    parse_embeddings,
    parse_text,
    parse_tokenize,
)
from .profiles import Profile
from .runner import Mailbox, Runner
from .settings import Settings
from .wire import (
    ClientGoneError,
    closing,
    header,
    json_bytes,
    parse_json,
    read_body,
    unless_gone,
    write_chunk,
)

_CREATED = 1_700_000_000  # when the model, as every server of it says, was made
TOKENIZE = "/tokenize"  # vLLM's own, outside /v1/
_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


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
    part = "messages" if call.chat else "prompt"
    asked = ""
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


class Shape:
    """How OpenAI writes a completion: the chat's way or the text's way."""

    def __init__(self, chat: bool, model: str) -> None:
        self.chat = chat
        prefix = "chatcmpl" if chat else "cmpl"
        self._base = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": "fp_lab",
        }

    def whole(self, work: Work) -> dict[str, object]:
        """The answer that is not streamed."""
        choices = [self._choice(answer) for answer in work.answers]
        return {**self._base, "choices": choices, "usage": work.usage()}

    def _choice(self, answer: Answer) -> dict[str, object]:
        added: dict[str, object] = {"text": "".join(answer.pieces)}
        if self.chat:
            added = {"message": _message(answer)}
        logprobs = answer.logprobs.of(answer.pieces) if answer.logprobs else None
        finish = {"logprobs": logprobs, "finish_reason": answer.finish_reason}
        return {"index": answer.index, **added, **finish}

    def chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        """One event of a stream."""
        base = dict(self._base)
        if self.chat:
            base["object"] = "chat.completion.chunk"
        return b"data: " + json_bytes({**base, "choices": choices, **more}) + b"\n\n"

    def part(
        self,
        index: int,
        delta: Mapping[str, object],
        reason: str | None = None,
        logprobs: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """One choice of an event: what it adds, and why it ends if it does."""
        added: Mapping[str, object] = {"delta": delta} if self.chat else {"text": "", **delta}
        return {"index": index, **added, "logprobs": logprobs, "finish_reason": reason}

    def token(self, answer: Answer, piece: str) -> Mapping[str, object]:
        """What the event of one token adds."""
        if answer.tool:
            return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        return {"content" if self.chat else "text": piece}

    def opening(self, answer: Answer) -> Mapping[str, object] | None:
        """What precedes the first token: a chat's role, and the tool's name if it calls one."""
        if not self.chat:
            return None
        if not answer.tool:
            return {"role": "assistant", "content": ""}
        call = {"index": 0, **answer.tool.delta("")}
        return {"role": "assistant", "content": None, "tool_calls": [call]}


def _message(answer: Answer) -> dict[str, object]:
    content = "".join(answer.pieces)
    if not answer.tool:
        return {"role": "assistant", "content": content, "refusal": None}
    calls = [answer.tool.delta(content)]
    return {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}


class Events:
    """The events of one choice: all that does not depend on a token's text is made beforehand."""

    def __init__(self, answer: Answer, shape: Shape, usage: Mapping[str, object]) -> None:
        def event(delta: Mapping[str, object], reason: str | None = None) -> bytes:
            return shape.chunk([shape.part(answer.index, delta, reason)], **usage)

        mark = uuid.uuid4().hex
        token = event(shape.token(answer, mark))
        self._before, _, self._after = token.partition(f'"{mark}"'.encode())
        opening = shape.opening(answer)
        self._role = b"" if opening is None else event(opening)
        self._answer = answer
        self._shape = shape
        self._usage = usage
        self.end = event({}, answer.finish_reason)

    def token(self, number: int) -> bytes:
        """The event of one token; a chat's first brings the role's before it."""
        opening = b"" if number else self._role
        piece = self._answer.pieces[number]
        if self._answer.logprobs:
            return opening + self._with_logprobs(self._answer.logprobs, number)
        return opening + self._before + json.dumps(piece).encode() + self._after

    def _with_logprobs(self, logprobs: Logprobs, number: int) -> bytes:
        pieces = self._answer.pieces[: number + 1]
        delta = self._shape.token(self._answer, pieces[-1])
        part = self._shape.part(self._answer.index, delta, None, logprobs.of(pieces, number))
        return self._shape.chunk([part], **self._usage)


class TokenStream(Response):
    """A response in server-sent events, one token per event, sent when it is due.

    The status line goes out with the first token: nginx's header time is the time to first token,
    and a request that is still queued can be tried elsewhere.
    """

    def __init__(self, work: Work, shape: Shape, include_usage: bool) -> None:
        super().__init__()
        self._work = work
        self._shape = shape
        self._include_usage = include_usage
        usage = {"usage": None} if include_usage else {}
        self._events = [Events(answer, shape, usage) for answer in work.answers]
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the last token, or until the client leaves."""

        async def deliver(token: Token) -> None:
            await self._deliver(token, scope, send)

        def write(token: Token) -> bool:
            event = self._events[token.generation.request.tag].token(token.number)
            if not write_chunk(scope, event):
                return False
            self._work.figures.tokens_sent += 1
            return True

        if not await self._work.run(receive, deliver, write):
            return
        end = b"data: [DONE]\n\n"
        if self._include_usage:
            end = self._shape.chunk([], usage=self._work.usage()) + end
        await send({"type": "http.response.body", "body": end})

    async def _deliver(self, token: Token, scope: Scope, send: Send) -> None:
        events = self._events[token.generation.request.tag]
        if not self._started:
            self._started = True
            start = {"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM}
            await send(start)
        await _event(send, events.token(token.number))
        if not closing(scope):
            self._work.figures.tokens_sent += 1
        if token.last:
            await _event(send, events.end)


async def _event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


@dataclass(frozen=True, slots=True)
class OpenAi:
    """The API's endpoints over one engine."""

    settings: Settings
    runner: Runner
    metrics: Metrics
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def routes(self) -> list[Route]:
        """The routes, for starlette."""
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{model:path}", self.show_model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/embeddings", self.embed, methods=["POST"]),
            Route(TOKENIZE, self.tokenize, methods=["POST"]),
        ]

    async def list_models(self, _request: HttpRequest) -> Response:
        """List the one model."""
        return _json({"object": "list", "data": [self._model()]})

    async def show_model(self, request: HttpRequest) -> Response:
        """Describe a model by its name."""
        name = request.path_params["model"]
        if name != self.settings.model:
            message = f"The model '{name}' does not exist"
            raise ApiError(404, message, "model", "model_not_found")
        return _json(self._model())

    async def chat(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        return await self._answer(request, parse_chat)

    async def complete(self, request: HttpRequest) -> Response:
        """Continue a text."""
        return await self._answer(request, parse_text)

    async def embed(self, request: HttpRequest) -> Response:
        """Answer with a vector for each input, after the time that their prefill takes."""
        body = await read_body(request.scope, request.receive, self.settings.body_limit)
        call = parse_embeddings(_content(body), self.settings.model)
        most = min(self.settings.max_model_len, self.runner.engine.profile.kv_blocks * BLOCK_TOKENS)
        for tokens in call.inputs:
            if len(tokens) >= most:
                message = f"This model's maximum context length is {most} tokens."
                raise ApiError(400, message, "input", "context_length_exceeded")
        self._refuse_if_full()
        if not await unless_gone(request.receive, self._prefill(call, request.scope)):
            raise ClientGoneError
        return _json(_embeddings(call, self.settings.model))

    async def _prefill(self, call: EmbeddingCall, scope: Scope) -> None:
        """Let the engine read the inputs; nothing of them stays in its prefix cache."""
        requests = [Request(len(tokens), 1, ()) for tokens in call.inputs]
        box = self.runner.submit(requests, scope["lab.record"].arrived)
        try:
            while await box.take():
                pass
        finally:
            self.runner.cancel(box)
        self.metrics.prompt_tokens += sum(map(len, call.inputs))

    async def tokenize(self, request: HttpRequest) -> Response:
        """Count the tokens of a text or a conversation, as vLLM's /tokenize does."""
        body = await read_body(request.scope, request.receive, self.settings.body_limit)
        tokens, as_text = parse_tokenize(_content(body), self.settings.model)
        return _json(
            {
                "count": len(tokens),
                "max_model_len": self.settings.max_model_len,
                "tokens": [embedding.token_id(token) for token in tokens],
                "token_strs": tokens if as_text else None,
            }
        )

    async def _answer(
        self, request: HttpRequest, parse: Callable[[object, str, int], Call]
    ) -> Response:
        record: Record = request.scope["lab.record"]
        record.llm = LlmFigures()
        body = await read_body(request.scope, request.receive, self.settings.body_limit)
        # one a turn of the event loop: others' arrivals are seen, and their time noted, in between
        async with self._turn:
            await asyncio.sleep(0)
            call = parse(_content(body), self.settings.model, self.settings.max_output)
            record.llm.stream = call.stream
            exact = _exact_tokens(request.scope, self.settings.max_output)
            answers = plan(call, self.settings, self.runner.engine.profile, exact)
            self._refuse_if_full()
            work = Work(self.runner, self.metrics, record, answers)
            self.metrics.observe("request_params_n", call.choices)
            if call.max_tokens is not None:
                self.metrics.observe("request_params_max_tokens", call.max_tokens)
            shape = Shape(call.chat, self.settings.model)
            if call.stream:
                return TokenStream(work, shape, call.include_usage)
        if not await work.run(request.receive, _keep):
            raise ClientGoneError
        return _json(shape.whole(work))

    def _refuse_if_full(self) -> None:
        """Raise ApiError (the profile's 429 or 503, with Retry-After) if the queue is full."""
        engine = self.runner.engine
        if engine.queue_is_full:
            message = f"The request queue is full: {engine.waiting} requests are waiting."
            status = engine.profile.queue_status
            raise ApiError(status, message, code="queue_full", headers={"Retry-After": "1"})

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.settings.model,
            "object": "model",
            "created": _CREATED,
            "owned_by": "nginx-llm-lab",
            "max_model_len": self.settings.max_model_len,
        }


def _embeddings(call: EmbeddingCall, model: str) -> dict[str, object]:
    count = sum(map(len, call.inputs))
    vectors = (embedding.vector(tokens, call.dimensions) for tokens in call.inputs)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": embedding.base64(vector) if call.base64 else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": model, "usage": usage}


async def _keep(_token: Token) -> None:
    """Do nothing: a whole answer is sent at its end."""


def _content(body: bytes) -> object:
    try:
        return parse_json(body)
    except ValueError as error:
        message = f"We could not parse the JSON body of your request: {error}."
        raise ApiError(400, message) from None


def _exact_tokens(scope: Scope, most: int) -> int | None:
    value = header(scope, b"x-lab-output-tokens")
    if value is None:
        return None
    if not value.isdigit() or len(value) > 9 or not 1 <= int(value) <= most:
        message = f"X-Lab-Output-Tokens must be a whole number from 1 to {most}."
        raise ApiError(400, message, "X-Lab-Output-Tokens", "invalid_value")
    return int(value)


def _json(content: object) -> Response:
    return Response(json_bytes(content), media_type="application/json")
