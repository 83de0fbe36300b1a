"""The OpenAPI 3.1 description of every route, generated from the tables that check calls."""

from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import product

from ..schema.example import KINDS
from ..settings import Settings
from .call import (
    CHAT_FIELDS,
    EMBEDDING_FIELDS,
    FEW,
    MAX_INPUTS,
    MAX_PROMPTS,
    PARTS,
    ROLES,
    TEXT_FIELDS,
    TOKEN_ID,
    TOKENIZE_FIELDS,
    Field,
)
from .responses_call import RESPONSE_FIELDS, UNSUPPORTED

Json = dict[str, object]

_STRING: Json = {"type": "string"}
_INTEGER: Json = {"type": "integer", "minimum": 0}
_PART: Json = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"type": {"const": kind}, kind: _STRING},
            "required": ["type", kind],
        }
        for kind in PARTS
    ]
}
_CONTENT: Json = {"anyOf": [_STRING, {"type": "array", "items": _PART, "minItems": 1}]}
_ERRORS: Mapping[int, str] = {
    400: "malformed, or a value that is not allowed",
    404: "no such model or path",
    405: "method not allowed",
    411: "neither Content-Length nor chunked",
    413: "body over the limit",
    415: "body compressed",
    500: "set by a behaviour",
    503: "set by a behaviour",
}


def describe(settings: Settings) -> Json:
    """The document for one backend: its model's name and limits are part of it."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nginx-llm-lab backend",
            "version": "1",
            "description": "The article's API and OpenAI's, with a model of an LLM server's time. "
            "The header X-Lab-Duration (seconds) makes the article's answers last; "
            "X-Lab-Output-Tokens sets the length of an LLM's answer.",
        },
        "paths": {**_operations(), **_article(), **_openai(settings)},
        "components": {"schemas": _schemas()},
    }


def _operations() -> Json:
    return {
        "/health": {"get": _get("healthy", "application/json", "Health")},
        "/metrics": {"get": _get("Prometheus text", "text/plain", "Text")},
        "/openapi.json": {"get": _get("this document", "application/json", "Any")},
    }


def _article() -> Json:
    greeting = _get("who answers", "text/plain", "Text")
    message: Json = {
        "type": "object",
        "properties": {"message": _STRING},
        "required": ["message"],
    }
    chat = _post("application/json", message, {"application/json": "Chat"}, "Problem")
    completions = {"application/json": "Completions"}
    # an empty text is allowed
    complete = _post("text/plain", _STRING, completions, "Problem", required=False)
    return {
        "/": {"get": greeting, "post": {"responses": _failures("Problem", (400, 404, 500, 503))}},
        "/chat": {"get": greeting, "post": chat},
        "/completions": {"get": greeting, "post": complete},
    }


def _openai(settings: Settings) -> Json:
    model: Json = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }
    listing = _get("the model", "application/json", "Models")
    show = _get("one model", "application/json", "Model", 404) | {"parameters": [model]}
    return {
        "/v1/models": {"get": listing},
        "/v1/models/{model}": {"get": show},
        "/v1/chat/completions": {"post": _completion(_chat_body(settings), "ChatCompletion")},
        "/v1/completions": {"post": _completion(_text_body(settings), "TextCompletion")},
        "/v1/responses": {"post": _completion(_response_body(settings), "Response")},
        "/v1/embeddings": {"post": _json_call(_embedding_body(settings), "Embeddings")},
        "/tokenize": {"post": _json_call(_tokenize_body(settings), "Tokens")},
    }


def _completion(body: Json, schema: str) -> Json:
    answers = {"application/json": schema, "text/event-stream": "Event"}
    return _post("application/json", body, answers, "ApiError")


def _json_call(body: Json, schema: str) -> Json:
    return _post("application/json", body, {"application/json": schema}, "ApiError")


def _response_body(settings: Settings) -> Json:
    turn: Json = {
        "type": "object",
        "properties": {"role": {"enum": ["user", "system", "developer"]}, "content": _STRING},
        "required": ["role", "content"],
        "description": "Also an assistant's message, a function_call and its function_call_output.",
    }
    turns: Json = {"type": "array", "items": turn, "minItems": 1}
    left_out = {"stream_options", "text", "tools", "include"}
    properties = {
        "model": {"const": settings.model},
        "input": {"anyOf": [_STRING, turns]},
        "max_output_tokens": _limit(settings),
        "tool_choice": {"enum": ["none", "auto", None]},
        "tools": {"anyOf": [{"type": "array", "maxItems": 0}, {"type": "null"}]},
        "text": {"type": ["object", "null"], "maxProperties": 0},
        **{name: _field(field) for name, field in RESPONSE_FIELDS.items() if name not in left_out},
        **{name: {"type": "null"} for name in UNSUPPORTED},
    }
    return {"type": "object", "properties": properties, "required": ["model", "input"]}


def _embedding_body(settings: Settings) -> Json:
    return {
        "type": "object",
        "properties": {
            "model": {"const": settings.model},
            "input": _prompts(MAX_INPUTS),
            "encoding_format": {"enum": ["float", "base64", None]},
            **{name: _field(field) for name, field in EMBEDDING_FIELDS.items()},
        },
        "required": ["model", "input"],
    }


def _tokenize_body(settings: Settings) -> Json:
    def one(present: str, schema: Json, absent: str) -> Json:
        properties = {present: schema, absent: {"type": "null"}}
        return {"properties": properties, "required": [present]}

    return {
        "type": "object",
        "properties": {
            "model": {"enum": [settings.model, None]},
            **{name: _field(field) for name, field in TOKENIZE_FIELDS.items()},
        },
        "anyOf": [
            one("prompt", _STRING, "messages"),
            one("messages", _messages(), "prompt"),
        ],
    }


def _prompts(most: int) -> Json:
    number: Json = {"type": "integer", "minimum": TOKEN_ID.low, "maximum": TOKEN_ID.high}
    ids: Json = {"type": "array", "items": number, "minItems": 1}
    prompts: Json = {"type": "array", "items": _STRING, "minItems": 1, "maxItems": most}
    tokens: Json = {"type": "array", "items": ids, "minItems": 1, "maxItems": most}
    return {"anyOf": [_STRING, prompts, ids, tokens]}


def _messages() -> Json:
    others = [role for role in ROLES if role != "assistant"]
    other_turn: Json = {
        "type": "object",
        "properties": {"role": {"enum": others}, "content": _CONTENT},
        "required": ["role", "content"],
    }
    assistant_turn: Json = {
        "type": "object",
        "properties": {
            "role": {"const": "assistant"},
            "content": {"anyOf": [_CONTENT, {"type": "null"}]},
        },
        "required": ["role"],
    }
    return {"type": "array", "items": {"anyOf": [other_turn, assistant_turn]}, "minItems": 1}


def _chat_body(settings: Settings) -> Json:
    properties = {
        "messages": _messages(),
        "max_completion_tokens": _limit(settings),
        **_properties(settings, CHAT_FIELDS),
        "response_format": _formats(),
    }
    return _body(properties, "messages", _tool_shapes(), _logprobs_shapes())


def _text_body(settings: Settings) -> Json:
    properties = {
        "prompt": _prompts(MAX_PROMPTS),
        **_properties(settings, TEXT_FIELDS),
        "suffix": {"enum": ["", None]},
        "response_format": _formats(),
    }
    few: Json = {"properties": {"prompt": _prompts(FEW)}}
    many: Json = {"properties": {"n": _field(Field("integer", 1, FEW))}}
    return _body(properties, "prompt", (few, many))


def _body(properties: Mapping[str, object], required: str, *shapes: tuple[Json, Json]) -> Json:
    chosen = product(_stream_shapes(), *shapes)
    return {
        "type": "object",
        "properties": dict(properties),
        "required": ["model", required],
        "anyOf": [reduce(_combined, parts) for parts in chosen],
    }


def _combined(first: Json, second: Json) -> Json:
    """Two partial shapes of a body in one."""
    properties = {**_mapping(first.get("properties")), **_mapping(second.get("properties"))}
    required = [*_list(first.get("required", [])), *_list(second.get("required", []))]
    return {"properties": properties, "required": required}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _stream_shapes() -> tuple[Json, Json]:
    """Two schemas: with stream_options only for streams."""
    not_streamed: Json = {
        "properties": {"stream": {"enum": [False, None]}, "stream_options": {"type": "null"}}
    }
    flags = ("include_usage", "continuous_usage_stats")
    usage: Json = {
        "type": "object",
        "properties": {flag: {"type": ["boolean", "null"]} for flag in flags},
    }
    streamed: Json = {
        "properties": {
            "stream": {"const": True},
            "stream_options": {"anyOf": [usage, {"type": "null"}]},
        },
        "required": ["stream"],
    }
    return not_streamed, streamed


def _tool_shapes() -> tuple[Json, Json]:
    """Two schemas, with tools and without: only the first allows a required tool."""
    described = {
        "description": "Or {type: function, function: {name: one of the tools}}, for that tool."
    }
    without: Json = {
        "properties": {
            "tools": {"anyOf": [{"type": "array", "maxItems": 0}, {"type": "null"}]},
            "tool_choice": {"enum": ["none", "auto", None], **described},
        }
    }
    arguments: Json = {
        "type": "object",
        "properties": {"type": {"const": "object"}},
        "required": ["type"],
    }
    function: Json = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "parameters": {"anyOf": [arguments, {"type": "null"}]},
        },
        "required": ["name"],
    }
    tool: Json = {
        "type": "object",
        "properties": {"type": {"const": "function"}, "function": function},
        "required": ["type", "function"],
    }
    offered: Json = {
        "properties": {
            "tools": {"type": "array", "items": tool, "minItems": 1},
            "tool_choice": {"enum": ["none", "auto", "required", None], **described},
        },
        "required": ["tools"],
    }
    return without, offered


def _logprobs_shapes() -> tuple[Json, Json]:
    """Two schemas, without logprobs and with: only the second allows top_logprobs."""
    without: Json = {
        "properties": {"logprobs": {"enum": [False, None]}, "top_logprobs": {"enum": [0, None]}}
    }
    return without, {"properties": {"logprobs": {"const": True}}, "required": ["logprobs"]}


def _formats() -> Json:
    schema: Json = {
        "type": "object",
        "properties": {"type": {"enum": list(KINDS)}},
        "description": "A JSON Schema.",
    }
    named: Json = {
        "type": "object",
        "properties": {"name": _STRING, "schema": schema},
        "required": ["name", "schema"],
    }
    plain: Json = {
        "type": "object",
        "properties": {"type": {"enum": ["text", "json_object"]}},
        "required": ["type"],
    }
    structured: Json = {
        "type": "object",
        "properties": {"type": {"const": "json_schema"}, "json_schema": named},
        "required": ["type", "json_schema"],
    }
    return {"anyOf": [plain, structured, {"type": "null"}]}


def _properties(settings: Settings, fields: Mapping[str, Field]) -> Json:
    stops: Json = {"anyOf": [_STRING, {"type": "array", "items": _STRING, "maxItems": 4}]}
    checked = {
        name: _field(field)
        for name, field in fields.items()
        if name not in {"stream", "stream_options", "tools"}
    }
    return {
        "model": {"const": settings.model},
        "max_tokens": _limit(settings),
        "stop": {"anyOf": [*_list(stops["anyOf"]), {"type": "null"}]},
        **checked,
    }


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _field(field: Field) -> Json:
    kind = "number" if field.kind == "decimal" else field.kind
    schema: Json = {"type": [kind, "null"]}
    if kind in {"number", "integer"}:
        schema |= {"minimum": field.low, "maximum": field.high}
    return schema


def _limit(settings: Settings) -> Json:
    return {"type": ["integer", "null"], "minimum": 1, "maximum": settings.max_output}


def _get(description: str, media: str, schema: str, *errors: int) -> Json:
    kind = "ApiError" if schema.startswith("Model") else "Problem"
    failures = _failures(kind, (400, 405, 500, 503, *errors))
    if schema == "Health":
        failures["503"] = _response("set to refuse", {"application/json": "Health"})
    return {"responses": {"200": _response(description, {media: schema}), **failures}}


def _post(
    media: str, body: Json, answers: Mapping[str, str], error: str, required: bool = True
) -> Json:
    failures = _failures(error, _ERRORS)
    return {
        "requestBody": {"required": required, "content": {media: {"schema": body}}},
        "responses": {"200": _response("the answer", answers), **failures},
    }


def _failures(schema: str, statuses: Iterable[int]) -> Json:
    content = {"application/json": schema}
    return {str(status): _response(_ERRORS[status], content) for status in statuses}


def _response(description: str, contents: Mapping[str, str]) -> Json:
    content = {
        media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}
        for media, schema in contents.items()
    }
    return {
        "description": description,
        "headers": {"X-Backend": {"required": True, "schema": _STRING}},
        "content": content,
    }


def _closed(properties: Mapping[str, object]) -> Json:
    """An object that has exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _chat_logprobs() -> Json:
    octets: Json = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}}
    token: Json = {"token": _STRING, "logprob": {"type": "number", "maximum": 0}, "bytes": octets}
    likeliest: Json = {"type": "array", "items": _closed(token), "maxItems": 20}
    tokens: Json = {"type": "array", "items": _closed({**token, "top_logprobs": likeliest})}
    listed = _closed({"content": tokens, "refusal": {"type": "null"}})
    return {"anyOf": [listed, {"type": "null"}]}


def _text_logprobs() -> Json:
    # null for the first token of an echoed prompt
    number: Json = {"type": ["number", "null"], "maximum": 0}
    top: Json = {"type": ["object", "null"], "additionalProperties": number}
    items: Mapping[str, Json] = {
        "tokens": _STRING,
        "token_logprobs": number,
        "top_logprobs": top,
        "text_offset": {"type": "integer", "minimum": 0},
    }
    listed = _closed({name: {"type": "array", "items": item} for name, item in items.items()})
    return {"anyOf": [listed, {"type": "null"}]}


def _response_object() -> Json:
    status: Json = {"enum": ["completed", "incomplete"]}
    part: Json = {"type": "object", "properties": {"text": _STRING}, "required": ["type", "text"]}
    message = _closed(
        {
            "type": {"const": "message"},
            "id": _STRING,
            "role": {"const": "assistant"},
            "content": {"type": "array", "items": part},
            "status": status,
        }
    )
    texts = dict.fromkeys(("id", "call_id", "name", "arguments"), _STRING)
    call = _closed({"type": {"const": "function_call"}, **texts, "status": status})
    output: Json = {"type": "array", "items": {"anyOf": [message, call]}, "minItems": 1}
    return {
        "type": "object",
        "properties": {"object": {"const": "response"}, "status": status, "output": output},
        "required": ["id", "object", "created_at", "model", "status", "output", "usage"],
    }


def _schemas() -> Json:
    signature = {"server": _STRING, "timestamp": {"type": "string", "format": "date-time"}}
    nullable: Json = {"type": ["string", "null"]}
    error = {"message": _STRING, "type": _STRING, "param": nullable, "code": nullable}
    line = _closed({"text": _STRING, "index": _INTEGER})
    model = _model()
    chat: Json = {"message": _message(), "logprobs": _chat_logprobs()}
    text: Json = {"text": _STRING, "logprobs": _text_logprobs()}
    return {
        "Any": {},
        "Text": _STRING,
        "Event": {"type": "object", "properties": {"data": _STRING}, "required": ["data"]},
        "Health": _closed({"status": {"enum": ["ok", "refused"]}}),
        "Problem": _closed({"error": _STRING, **signature}),
        "Chat": _closed({"original": _STRING, "response": _STRING, **signature}),
        "Completions": _closed({"completions": {"type": "array", "items": line}, **signature}),
        "ApiError": _closed({"error": _closed(error)}),
        "Embeddings": _embeddings(),
        "Response": _response_object(),
        "Tokens": _tokens(),
        "Model": model,
        "Models": _closed({"object": {"const": "list"}, "data": {"type": "array", "items": model}}),
        "ChatCompletion": _completion_object("chat.completion", chat),
        "TextCompletion": _completion_object("text_completion", text),
    }


def _message() -> Json:
    """The assistant's message: a text, or calls of tools."""
    assistant: Json = {"role": {"const": "assistant"}, "refusal": {"type": "null"}}
    function = _closed({"name": _STRING, "arguments": _STRING})
    call = _closed({"id": _STRING, "type": {"const": "function"}, "function": function})
    calls: Json = {"type": "array", "items": call, "minItems": 1}
    return {
        "anyOf": [
            _closed({**assistant, "content": _STRING}),
            _closed({**assistant, "content": {"type": "null"}, "tool_calls": calls}),
        ]
    }


def _model() -> Json:
    return _closed(
        {
            "id": _STRING,
            "object": {"const": "model"},
            "created": _INTEGER,
            "owned_by": _STRING,
            "max_model_len": _INTEGER,
        }
    )


def _completion_object(kind: str, answer: Json) -> Json:
    """A completion whose choices have `answer`, a message or a text."""
    finish: Json = {"finish_reason": {"enum": ["stop", "length", "tool_calls"]}}
    choice = _closed({"index": _INTEGER, **answer, **finish})
    usage = _closed(
        {
            "prompt_tokens": _INTEGER,
            "completion_tokens": _INTEGER,
            "total_tokens": _INTEGER,
            "prompt_tokens_details": _closed({"cached_tokens": _INTEGER}),
        }
    )
    return _closed(
        {
            "id": _STRING,
            "object": {"const": kind},
            "created": _INTEGER,
            "model": _STRING,
            "system_fingerprint": _STRING,
            "choices": {"type": "array", "items": choice, "minItems": 1},
            "usage": usage,
        }
    )


def _embeddings() -> Json:
    numbers: Json = {"type": "array", "items": {"type": "number"}, "minItems": 1}
    embedding = _closed(
        {
            "object": {"const": "embedding"},
            "index": _INTEGER,
            "embedding": {"anyOf": [numbers, _STRING]},
        }
    )
    return _closed(
        {
            "object": {"const": "list"},
            "data": {"type": "array", "items": embedding, "minItems": 1},
            "model": _STRING,
            "usage": _closed({"prompt_tokens": _INTEGER, "total_tokens": _INTEGER}),
        }
    )


def _tokens() -> Json:
    texts: Json = {"type": ["array", "null"], "items": _STRING}
    return _closed(
        {
            "count": _INTEGER,
            "max_model_len": _INTEGER,
            "tokens": {"type": "array", "items": _INTEGER},
            "token_strs": texts,
        }
    )
