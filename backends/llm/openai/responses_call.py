"""Check a call of OpenAI's Responses API: parameters, and the fields that a response repeats."""

from collections.abc import Mapping
from dataclasses import replace

from .api_error import ApiError, missing
from .call import (
    Call,
    Field,
    check_fields,
    checked_body,
    last_role,
    messages_prompt,
    read_call,
    tool_tokens,
)
from .forms import response_form

RESPONSE_FIELDS: Mapping[str, Field] = {
    "instructions": Field("string"),
    "temperature": Field("decimal", 0, 2),
    "top_p": Field("decimal", 0, 1),
    "seed": Field("integer", -(1 << 63), (1 << 63) - 1),
    "min_tokens": Field("integer", 0, 1 << 20),
    "ignore_eos": Field("boolean"),
    "stream": Field("boolean"),
    "stream_options": Field("object"),
    "text": Field("object"),
    "tools": Field("array"),
    "parallel_tool_calls": Field("boolean"),
    "reasoning": Field("object"),
    "include": Field("array"),
    "top_logprobs": Field("integer", 0, 20),
    "metadata": Field("object"),
    "store": Field("boolean"),
    "service_tier": Field("string"),
    "user": Field("string"),
}
# they need what the backend does not have: stored responses, a background
UNSUPPORTED = ("background", "conversation", "previous_response_id", "prompt")
_LOGPROBS = "message.output_text.logprobs"
_LIMIT = "max_output_tokens"
_ITEMS = ("message", "function_call", "function_call_output")
_DEFAULTS: Mapping[str, object] = {
    "instructions": None,
    _LIMIT: None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "user": None,
}


def parse_response(
    content: object, model: str, max_output: int
) -> tuple[Call, Mapping[str, object]]:
    """Read the body of a call: the call, and the fields that every response repeats.

    Raises ApiError, also for what would need stored responses.
    """
    body = checked_body(content, model)
    if body.get("input") is None:
        raise missing("input")
    for name in UNSUPPORTED:
        if body.get(name):
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise ApiError(400, message, name, "unsupported_parameter")
    check_fields(body, RESPONSE_FIELDS)
    messages = _messages(body["input"])
    prompt = messages_prompt(messages, "input")
    if instructions := body.get("instructions"):
        prompt = (*messages_prompt([_message("system", instructions)])[:-1], *prompt)
    # the Responses API ignores fields of these names: it has one choice and no usage option
    known = {name: body[name] for name in (*RESPONSE_FIELDS, _LIMIT) if name in body}
    known.pop("stream_options", None)
    prompts = ((*tool_tokens(body.get("tools")), *prompt),)
    call = read_call(known, True, prompts, (_LIMIT,), max_output)
    echo = {name: _or_default(body, name, default) for name, default in _DEFAULTS.items()}
    form = response_form(body, last_role(messages))
    call = replace(call, part="input", form=form, logprobs=_logprobs(body))
    return call, {**echo, "model": model}


def _logprobs(body: Mapping[str, object]) -> int | None:
    """The number of likeliest tokens to list; None where no probabilities are included."""
    included, top = body.get("include"), body.get("top_logprobs")
    if not isinstance(included, list) or _LOGPROBS not in included:
        return None
    return int(top) if isinstance(top, int | float) else 0


def _or_default(body: Mapping[str, object], name: str, default: object) -> object:
    value = body.get(name)
    return default if value is None else value


def _message(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def _messages(given: object) -> object:
    """Convert the input to chat messages; invalid parts are left for the check of messages."""
    if isinstance(given, str):
        return [_message("user", given)]
    if not isinstance(given, list):
        return given
    return [_turn(item, f"input[{index}]") for index, item in enumerate(given)]


def _turn(item: object, where: str) -> object:
    if not isinstance(item, dict):
        return item
    kind = item.get("type", _ITEMS[0])
    if kind not in _ITEMS:
        allowed = ", ".join(f"'{name}'" for name in _ITEMS)
        message = f"Invalid value: '{kind}'. Supported values are: {allowed}."
        raise ApiError(400, message, f"{where}.type", "invalid_value")
    if item.get("type") == "function_call":
        return {"role": "assistant", "content": None, "tool_calls": [{"function": item}]}
    if item.get("type") == "function_call_output":
        return _message("tool", _content(item.get("output")))
    return {**item, "content": _content(item.get("content"))} if "content" in item else item


def _content(content: object) -> object:
    if not isinstance(content, list):
        return content
    return [_text_part(part) for part in content]


def _text_part(part: object) -> object:
    if isinstance(part, dict) and part.get("type") in ("input_text", "output_text"):
        return {**part, "type": "text"}
    return part
