"""Check a call of the OpenAI API: its parameters, or the error that OpenAI would return."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from .api_error import ApiError, missing
from .forms import TEXT, Form, chat_form, text_form
from .text import tokens

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PARTS = ("text", "refusal")  # each part holds its text under its own type
MAX_CHOICES = 128
MAX_PROMPTS = 128
# all answers of a call are planned when it arrives: above this number of prompts, it is also the
# maximum of `n`
FEW = 8
MAX_INPUTS = 2048
START = "<|start|>"
DIMENSIONS = 384
_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """An optional field: its kind in OpenAI's words, and its range if it is a number."""

    kind: str
    low: float = 0
    high: float = 0


TOKEN_ID = Field("integer", 0, _INT64)  # of a prompt that is given as numbers
_COMMON: Mapping[str, Field] = {
    "temperature": Field("decimal", 0, 2),
    "top_p": Field("decimal", 0, 1),
    "presence_penalty": Field("decimal", -2, 2),
    "frequency_penalty": Field("decimal", -2, 2),
    "n": Field("integer", 1, MAX_CHOICES),
    "seed": Field("integer", -_INT64 - 1, _INT64),
    "min_tokens": Field("integer", 0, 1 << 20),
    "ignore_eos": Field("boolean"),
    "include_stop_str_in_output": Field("boolean"),
    "stream": Field("boolean"),
    "stream_options": Field("object"),
    "user": Field("string"),
    "logit_bias": Field("object"),
}
CHAT_FIELDS: Mapping[str, Field] = {
    **_COMMON,
    "logprobs": Field("boolean"),
    "top_logprobs": Field("integer", 0, 20),
    "response_format": Field("object"),
    "metadata": Field("object"),
    "store": Field("boolean"),
    "tools": Field("array"),
    "parallel_tool_calls": Field("boolean"),
    "reasoning_effort": Field("string"),
    "service_tier": Field("string"),
}
TEXT_FIELDS: Mapping[str, Field] = {
    **_COMMON,
    "logprobs": Field("integer", 0, 5),
    "best_of": Field("integer", 1, 20),
    "echo": Field("boolean"),
}
EMBEDDING_FIELDS: Mapping[str, Field] = {
    "dimensions": Field("integer", 1, 1024),
    "user": Field("string"),
}
TOKENIZE_FIELDS: Mapping[str, Field] = {
    "add_special_tokens": Field("boolean"),
    "add_generation_prompt": Field("boolean"),
    "return_token_strs": Field("boolean"),
    "tools": Field("array"),
}
_ARTICLES = {"array": "an array", "object": "an object", "integer": "an integer"}


@dataclass(frozen=True, slots=True)
class Call:
    """The parameters of a call; a prompt is a tuple of tokens, `max_tokens` None if absent."""

    chat: bool
    prompts: tuple[tuple[str, ...], ...]
    choices: int
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    # vLLM's: the usage so far in every event
    continuous_usage: bool
    seed: int
    # the request's field that holds the prompt
    part: str = "prompt"
    form: Form = TEXT
    # the number of likeliest tokens listed in each place; None for no probabilities
    logprobs: int | None = None
    # whether a text completion begins with its prompt
    echo: bool = False
    # whether an answer that a stop text ends contains it
    keeps_stop: bool = False


def parse_chat(content: object, model: str, max_output: int) -> Call:
    """Read the body of a chat completion; raises ApiError."""
    body = checked_body(content, model)
    if "messages" not in body:
        raise missing("messages")
    prompt = messages_prompt(body["messages"])
    check_fields(body, CHAT_FIELDS)
    _check_modalities(body.get("modalities"))
    limits = ("max_completion_tokens", "max_tokens")
    form = chat_form(body, last_role(body["messages"]))
    prompt = (*tool_tokens(body.get("tools")), *prompt)
    call = read_call(body, True, (prompt,), limits, max_output)
    return replace(call, part="messages", form=form, logprobs=_chat_logprobs(body))


def _check_modalities(value: object) -> None:
    if value not in (None, ["text"]):
        message = "Unsupported value: 'modalities' supports only ['text'] with this model."
        raise ApiError(400, message, "modalities", "unsupported_value")


def parse_text(content: object, model: str, max_output: int) -> Call:
    """Read the body of a text completion; raises ApiError."""
    body = checked_body(content, model)
    if body.get("prompt") is None:
        raise missing("prompt")
    prompts = text_prompts(body["prompt"])
    check_fields(body, TEXT_FIELDS)
    if body.get("suffix"):
        message = "Unsupported parameter: 'suffix' is not supported with this model."
        raise ApiError(400, message, "suffix", "unsupported_parameter")
    call = read_call(body, False, prompts, ("max_tokens",), max_output)
    if len(prompts) > FEW:
        _check("n", Field("integer", 1, FEW), call.choices)
    return replace(
        call,
        form=text_form(body),
        logprobs=_optional(body, "logprobs"),
        echo=body.get("echo") is True,
    )


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """A call for embeddings: the tokens of each input, and how to write the vectors."""

    inputs: tuple[tuple[str, ...], ...]
    dimensions: int
    base64: bool


def parse_embeddings(content: object, model: str) -> EmbeddingCall:
    """Read the body of a call for embeddings; raises ApiError."""
    body = checked_body(content, model)
    if body.get("input") is None:
        raise missing("input")
    inputs = text_prompts(body["input"], "input", MAX_INPUTS)
    check_fields(body, EMBEDDING_FIELDS)
    encoding = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        message = f"Invalid value: '{encoding}'. Supported values are: 'float' and 'base64'."
        raise ApiError(400, message, "encoding_format", "invalid_value")
    dimensions = _integer(body, "dimensions", DIMENSIONS)
    return EmbeddingCall(inputs, dimensions, encoding == "base64")


def parse_tokenize(content: object, model: str) -> tuple[tuple[str, ...], bool]:
    """Read vLLM's /tokenize: the tokens, and whether to answer with their text too.

    `model` may be left out. Raises ApiError.
    """
    if isinstance(content, dict) and content.get("model") is None:
        content = {**content, "model": model}
    body = checked_body(content, model)
    prompt, messages = body.get("prompt"), body.get("messages")
    if (prompt is None) == (messages is None):
        message = "Exactly one of 'prompt' and 'messages' is required."
        raise ApiError(400, message, "prompt", "invalid_value")
    check_fields(body, TOKENIZE_FIELDS)
    as_text = body.get("return_token_strs") is True
    if messages is None:
        return tuple(tokens(_string(prompt, "prompt"))), as_text
    return (*tool_tokens(body.get("tools")), *messages_prompt(messages)), as_text


def checked_body(content: object, model: str) -> Mapping[str, object]:
    """A request's body for the model that this backend has; raises ApiError."""
    if not isinstance(content, dict):
        raise ApiError(400, "We could not parse the JSON body of your request: expected an object.")
    named = content.get("model")
    if named is None:
        raise ApiError(400, "you must provide a model parameter", "model")
    if not isinstance(named, str):
        raise _wrong_type("model", "string", named)
    if named != model:
        message = f"The model `{named}` does not exist or you do not have access to it."
        raise ApiError(404, message, "model", "model_not_found")
    return content


def read_call(
    body: Mapping[str, object],
    chat: bool,
    prompts: tuple[tuple[str, ...], ...],
    limits: tuple[str, ...],
    max_output: int,
) -> Call:
    """Read the fields that all calls share; `limits` names the fields that limit output tokens.

    Raises ApiError.
    """
    choices = _integer(body, "n", 1)
    include_usage = _stream_option(body, "include_usage")
    given = [_limit(body, name, max_output) for name in limits]
    max_tokens = next((limit for limit in given if limit is not None), None)
    return Call(
        chat=chat,
        prompts=prompts,
        choices=choices,
        max_tokens=max_tokens,
        min_tokens=min(_integer(body, "min_tokens", 0), max_tokens or max_output),
        ignore_eos=body.get("ignore_eos") is True,
        stops=_stops(body.get("stop")),
        stream=body.get("stream") is True,
        include_usage=include_usage,
        continuous_usage=include_usage and _stream_option(body, "continuous_usage_stats"),
        seed=_integer(body, "seed", 0),
        keeps_stop=body.get("include_stop_str_in_output") is True,
    )


def check_fields(body: Mapping[str, object], known: Mapping[str, Field]) -> None:
    """Raise ApiError for the first of these fields that has another type or is out of range."""
    for name, field in known.items():
        value = body.get(name)
        if value is not None:
            _check(name, field, value)


def _check(name: str, field: Field, value: object) -> None:
    if not _is(field.kind, value):
        raise _wrong_type(name, field.kind, value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if value < field.low:
        raise _out_of_range(name, field.kind, "below", "minimum", ">=", field.low, value)
    if value > field.high:
        raise _out_of_range(name, field.kind, "above", "maximum", "<=", field.high, value)


def _is(kind: str, value: object) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, float):
        # JSON knows one kind of number: 2.0 is a whole one
        return kind == "decimal" or (kind == "integer" and value.is_integer())
    return kind == _kind(value) or (kind == "decimal" and isinstance(value, int))


def _kind(value: object) -> str:
    kinds = {bool: "boolean", int: "integer", float: "decimal", str: "string", list: "array"}
    return "null" if value is None else kinds.get(type(value), "object")


def _integer(body: Mapping[str, object], name: str, default: int) -> int:
    value = body.get(name)
    return int(value) if isinstance(value, int | float) else default


def _optional(body: Mapping[str, object], name: str) -> int | None:
    return None if body.get(name) is None else _integer(body, name, 0)


def _chat_logprobs(body: Mapping[str, object]) -> int | None:
    top = _integer(body, "top_logprobs", 0)
    if body.get("logprobs") is True:
        return top
    if top:
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise ApiError(400, message, "top_logprobs", "invalid_value")
    return None


def _limit(body: Mapping[str, object], name: str, max_output: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    _check(name, Field("integer", 1, float("inf")), value)
    limit = _integer(body, name, 1)
    if limit > max_output:
        message = (
            f"{name} is too large: {limit}. This model supports at most {max_output} completion "
            f"tokens, whereas you provided {limit}."
        )
        raise ApiError(400, message, name, "invalid_value")
    return limit


def _stream_option(body: Mapping[str, object], name: str) -> bool:
    options = body.get("stream_options")
    if not isinstance(options, dict):
        return False
    if body.get("stream") is not True:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(400, message, "stream_options")
    value = options.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong_type(f"stream_options.{name}", "boolean", value)
    return value is True


def _stops(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise _wrong_type("stop", "string or an array of strings", value)
    _check_length(value, "stop", 4)
    return tuple(_string(text, f"stop[{index}]") for index, text in enumerate(value))


def _check_length(value: list[object], where: str, most: int) -> None:
    if len(value) > most:
        message = (
            f"Invalid '{where}': array too long. Expected an array with maximum length {most}, "
            f"but got an array with length {len(value)} instead."
        )
        raise ApiError(400, message, where, "array_above_max_length")


def last_role(messages: object) -> str:
    """Return the role of the last of these messages, which were checked before."""
    last = messages[-1] if isinstance(messages, list) else {}
    return str(last.get("role", "user"))


def messages_prompt(value: object, where: str = "messages") -> tuple[str, ...]:
    """Read the tokens of a chat's messages, with a mark before each turn; raises ApiError."""
    messages = _filled(value, where)
    turns = (_message(message, f"{where}[{index}]") for index, message in enumerate(messages))
    return (*chain.from_iterable(turns), "<|assistant|>")


def _message(value: object, where: str) -> list[str]:
    if not isinstance(value, dict):
        raise _wrong_type(where, "object", value)
    if "role" not in value:
        raise missing(f"{where}.role")
    role = _string(value["role"], f"{where}.role")
    if role not in ROLES:
        allowed = ", ".join(f"'{name}'" for name in ROLES)
        message = f"Invalid value: '{role}'. Supported values are: {allowed}."
        raise ApiError(400, message, f"{where}.role", "invalid_value")
    # an assistant's turn may be a tool call and nothing else
    content = value.get("content", "" if role == "assistant" else None)
    if content is None and role == "assistant":
        content = ""
    if content is None:
        raise missing(f"{where}.content")
    return [f"<|{role}|>", *tokens(_text(content, f"{where}.content")), *_tool_call_tokens(value)]


def tool_tokens(tools: object) -> list[str]:
    """Return the tokens of the tools' definitions, which precede the messages in the prompt."""
    return ["<|tools|>", *tokens(json.dumps(tools, ensure_ascii=False))] if tools else []


def _tool_call_tokens(message: Mapping[str, object]) -> list[str]:
    """Return the tokens of the tool calls that an assistant's turn holds."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return []
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    texts = [
        f"{function.get('name')} {function.get('arguments')}"
        for function in functions
        if isinstance(function, dict)
    ]
    return tokens(" ".join(texts))


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong_type(where, "string or an array of parts", content)
    parts = _filled(content, where)
    return "".join(_part(part, f"{where}[{index}]") for index, part in enumerate(parts))


def _part(part: object, where: str) -> str:
    if not isinstance(part, dict):
        raise _wrong_type(where, "object", part)
    kind = part.get("type")
    if kind not in PARTS:
        allowed = " and ".join(f"'{name}'" for name in PARTS)
        message = f"Invalid value: '{kind}'. Supported values are: {allowed}."
        raise ApiError(400, message, f"{where}.type", "invalid_value")
    if kind not in part:
        raise missing(f"{where}.{kind}")
    return _string(part[kind], f"{where}.{kind}")


def text_prompts(
    value: object, where: str = "prompt", most: int = MAX_PROMPTS
) -> tuple[tuple[str, ...], ...]:
    """Read a text, several texts, token ids or lists of ids as tokens; raises ApiError."""
    if isinstance(value, str):
        return (_prompt(value),)
    items = _filled(value, where)
    if all(isinstance(item, str) for item in items):
        _check_length(items, where, most)
        return tuple(_prompt(str(item)) for item in items)
    if all(isinstance(item, list) for item in items):
        _check_length(items, where, most)
        return tuple(
            _ids(_filled(item, f"{where}[{index}]"), f"{where}[{index}]")
            for index, item in enumerate(items)
        )
    return (_ids(items, where),)


def _prompt(text: str) -> tuple[str, ...]:
    # an empty prompt still has one token
    return tuple(tokens(text)) or (START,)


def _ids(items: list[object], where: str) -> tuple[str, ...]:
    for index, item in enumerate(items):
        _check(f"{where}[{index}]", TOKEN_ID, item)
    return tuple(f"#{item}" for item in items)


def _filled(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong_type(where, "array", value)
    if not value:
        message = (
            f"Invalid '{where}': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead."
        )
        raise ApiError(400, message, where, "empty_array")
    return value


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(where, "string", value)
    return value


def _wrong_type(where: str, kind: str, value: object) -> ApiError:
    expected, got = (_ARTICLES.get(name, f"a {name}") for name in (kind, _kind(value)))
    got = "null" if value is None else got
    message = f"Invalid type for '{where}': expected {expected}, but got {got} instead."
    return ApiError(400, message, where, "invalid_type")


def _out_of_range(
    where: str, kind: str, side: str, end: str, sign: str, limit: float, value: float
) -> ApiError:
    message = (
        f"Invalid '{where}': {kind} {side} {end} value. "
        f"Expected a value {sign} {limit:g}, but got {value} instead."
    )
    return ApiError(400, message, where, f"{kind}_{side}_{end[:3]}_value")
