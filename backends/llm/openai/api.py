"""OpenAI's API: models, completions, responses and embeddings, over one engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from ..blocks import BLOCK_TOKENS
from ..engine import Request, Token
from ..journal import LlmFigures, Record
from ..metrics import Metrics
from ..runner import Runner
from ..settings import Settings
from ..wire import ClientGoneError, header, json_bytes, parse_json, read_body, unless_gone
from . import embedding
from .api_error import ApiError
from .call import Call, EmbeddingCall, parse_chat, parse_embeddings, parse_text, parse_tokenize
from .completions import Completion
from .responses import ResponseShape
from .responses_call import parse_response
from .stream import Shape, TokenStream
from .turns import Turns
from .work import Answer, Work, plan

_CREATED = 1_700_000_000  # creation time of the model, the same on every backend
TOKENIZE = "/tokenize"  # vLLM's own, outside /v1/


@dataclass(frozen=True, slots=True)
class OpenAi:
    """The API's endpoints over one engine."""

    settings: Settings
    runner: Runner
    metrics: Metrics
    _turns: Turns = field(default_factory=Turns)

    def routes(self) -> list[Route]:
        """The routes, for starlette."""
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{model:path}", self.show_model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/responses", self.respond, methods=["POST"]),
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
        return await self._answer(request, lambda body: self._completion(parse_chat, body))

    async def complete(self, request: HttpRequest) -> Response:
        """Continue a text."""
        return await self._answer(request, lambda body: self._completion(parse_text, body))

    def _completion(
        self, parse: Callable[[object, str, int], Call], body: object
    ) -> tuple[Call, Shape]:
        call = parse(body, self.settings.model, self.settings.max_output)
        usage = call.include_usage, call.continuous_usage
        return call, Completion(call.chat, self.settings.model, *usage)

    async def respond(self, request: HttpRequest) -> Response:
        """Answer a call of the Responses API; nothing is stored."""
        return await self._answer(request, self._response)

    def _response(self, body: object) -> tuple[Call, Shape]:
        call, echo = parse_response(body, self.settings.model, self.settings.max_output)
        return call, ResponseShape(echo)

    async def embed(self, request: HttpRequest) -> Response:
        """Answer with a vector for each input, after the time that their prefill takes."""
        body = await read_body(request.scope, request.receive, self.settings.body_limit)
        call = parse_embeddings(_content(body), self.settings.model)
        most = min(self.settings.max_model_len, self.runner.engine.profile.kv_blocks * BLOCK_TOKENS)
        for tokens in call.inputs:
            if len(tokens) >= most:
                message = f"This model's maximum context length is {most} tokens."
                raise ApiError(400, message, "input", "context_length_exceeded")
        self._refuse_if_full(request.scope["lab.record"])
        if not await unless_gone(request.receive, self._prefill(call, request.scope)):
            raise ClientGoneError
        await self._turns.begin()
        self._turns.count(sum(map(len, call.inputs)))
        return _json(_embeddings(call, self.settings.model))

    async def _prefill(self, call: EmbeddingCall, scope: Scope) -> None:
        """Run the prefill of the inputs in the engine; its prefix cache keeps nothing of them."""
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
        self, request: HttpRequest, parse: Callable[[object], tuple[Call, Shape]]
    ) -> Response:
        record: Record = request.scope["lab.record"]
        record.llm = LlmFigures()
        body = await read_body(request.scope, request.receive, self.settings.body_limit)
        await self._turns.begin()
        call, shape = parse(_content(body))
        self._turns.count(sum(map(len, call.prompts)))
        record.llm.stream = call.stream
        exact = _exact_tokens(request.scope, self.settings.max_output)
        answers = await self._planned(call, exact)
        self._refuse_if_full(record)
        work = Work(self.runner, self.metrics, record, answers)
        self.metrics.observe("request_params_n", call.choices)
        if call.max_tokens is not None:
            self.metrics.observe("request_params_max_tokens", call.max_tokens)
        if call.stream:
            return TokenStream(work, shape)
        if not await work.run(request.receive, _ignore):
            raise ClientGoneError
        return _json(shape.body(work))

    async def _planned(self, call: Call, exact: int | None) -> tuple[Answer, ...]:
        """Plan a call's answers, in several turns if they are long."""
        answers: list[Answer] = []
        for answer in plan(call, self.settings, self.runner.engine.profile, exact):
            answers.append(answer)
            self._turns.count(len(answer.pieces))
            if len(answers) < len(call.prompts) * call.choices:
                await self._turns.begin()
        return tuple(answers)

    def _refuse_if_full(self, record: Record) -> None:
        """Raise ApiError (the profile's 429 or 503, with Retry-After) if the queue is full."""
        engine = self.runner.engine
        if engine.queue_is_full:
            record.fate = "refused"
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


async def _ignore(_token: Token) -> None:
    """Do nothing: an answer that is not streamed is sent at its end."""


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
