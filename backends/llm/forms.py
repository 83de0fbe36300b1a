"""The form of an answer: plain text, JSON, or a call of a tool; read from a request's fields."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import example
from .api_error import ApiError

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the client offers; `parameters` is the JSON Schema of its arguments."""

    name: str
    parameters: object


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer consists of.

    `schema` is the JSON Schema of an answer in JSON; `tools` are those of which one is called.
    With neither, the answer is text. `where` is the request's field that an error names.
    """

    schema: object = None
    tools: tuple[Tool, ...] = ()
    where: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the answer is plain text."""
        return self.schema is None and not self.tools

    def content(self, seed: int) -> tuple[str, str]:
        """Make up the tool's name ("" for none) and the JSON that the answer consists of.

        Raises ApiError for a schema for which no value can be made.
        """
        if not self.tools:
            return "", self._json(self.schema, seed)
        tool = random.Random(seed).choice(self.tools)
        return tool.name, self._json(tool.parameters, seed)

    def check(self) -> None:
        """Raise ApiError if no value can be made for one of the schemas."""
        for schema in [tool.parameters for tool in self.tools] or [self.schema]:
            self._json(schema, 0)

    def _json(self, schema: object, seed: int) -> str:
        try:
            return _encode(example.value(schema, seed))
        except (example.SchemaError, ValueError) as error:
            message = f"Invalid schema for '{self.where}': {error}."
            raise ApiError(400, message, self.where, "invalid_json_schema") from None


TEXT = Form()


def chat_form(body: Mapping[str, object], last_role: str) -> Form:
    """Read `tools`, `tool_choice` and `response_format` of a chat; raises ApiError.

    With the choice left to the model ("auto"), it calls a tool when a user spoke last, and answers
    in text or JSON when a tool did.
    """
    tools = [_chat_tool(tool, f"tools[{index}]") for index, tool in _numbered(body, "tools")]
    chosen = _chosen(body.get("tool_choice"), tools, last_role, _named_by_chat)
    if chosen:
        return _checked(Form(tools=tuple(chosen), where="tools"))
    form = body.get("response_format")
    if form is None:
        return TEXT
    return _format(form, "response_format", "json_schema")


def response_form(body: Mapping[str, object], last_role: str) -> Form:
    """Read `tools`, `tool_choice` and `text.format` of the Responses API, as `chat_form` does."""
    tools = [_response_tool(tool, f"tools[{index}]") for index, tool in _numbered(body, "tools")]
    chosen = _chosen(body.get("tool_choice"), tools, last_role, lambda choice: choice.get("name"))
    if chosen:
        return _checked(Form(tools=tuple(chosen), where="tools"))
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    return TEXT if form is None else _format(form, "text.format", "")


def _numbered(body: Mapping[str, object], name: str) -> Sequence[tuple[int, object]]:
    value = body.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _invalid(name, "expected an array")
    return tuple(enumerate(value))


def _chat_tool(tool: object, where: str) -> Tool:
    return _function(_function_tool(tool, where).get("function"), f"{where}.function")


def _response_tool(tool: object, where: str) -> Tool:
    return _function(_function_tool(tool, where), where)


def _function_tool(tool: object, where: str) -> Mapping[str, object]:
    if not isinstance(tool, dict):
        raise _invalid(where, "expected an object")
    if tool.get("type") != "function":
        message = f"Invalid value: '{tool.get('type')}'. Supported values are: 'function'."
        raise ApiError(400, message, f"{where}.type", "invalid_value")
    return tool


def _function(function: object, where: str) -> Tool:
    if not isinstance(function, dict):
        raise _missing(where)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise _missing(f"{where}.name")
    parameters = function.get("parameters")
    if parameters is None:
        return Tool(name, {"type": "object"})
    kind = parameters.get("type") if isinstance(parameters, dict) else None
    if kind != "object":
        message = (
            f"Invalid schema for function '{name}': schema must be a JSON Schema of "
            f"'type: \"object\"', got 'type: \"{kind}\"'."
        )
        raise ApiError(400, message, f"{where}.parameters", "invalid_function_parameters")
    return Tool(name, parameters)


def _named_by_chat(choice: Mapping[str, object]) -> object:
    function = choice.get("function")
    return function.get("name") if isinstance(function, dict) else None


def _chosen(
    choice: object,
    tools: list[Tool],
    last_role: str,
    named: Callable[[Mapping[str, object]], object],
) -> list[Tool]:
    """The tools of which the answer calls one; none where it calls none."""
    if isinstance(choice, dict) and choice.get("type") == "function":
        name = named(choice)
        matching = [tool for tool in tools if tool.name == name]
        if not matching:
            message = f"Tool choice '{name}' not found in 'tools' parameter."
            raise ApiError(400, message, "tool_choice", "invalid_value")
        return matching
    if choice not in (None, "none", "auto", "required"):
        message = (
            "Invalid value for 'tool_choice': expected 'none', 'auto', 'required' or a function."
        )
        raise ApiError(400, message, "tool_choice", "invalid_value")
    if choice == "required" and not tools:
        message = "Invalid value for 'tool_choice': 'required' is only allowed with 'tools'."
        raise ApiError(400, message, "tool_choice", "invalid_value")
    if choice == "none" or (choice != "required" and last_role != "user"):
        return []
    return tools


def _format(form: object, where: str, nested: str) -> Form:
    if not isinstance(form, dict):
        raise _invalid(where, "expected an object")
    kind = form.get("type")
    if kind == "text":
        return TEXT
    if kind == "json_object":
        return Form(schema={"type": "object", "minProperties": 1})
    if kind != "json_schema":
        allowed = "'text', 'json_object', 'json_schema'"
        message = f"Invalid value: '{kind}'. Supported values are: {allowed}."
        raise ApiError(400, message, f"{where}.type", "invalid_value")
    holder = form.get(nested) if nested else form
    place = f"{where}.{nested}" if nested else where
    if not isinstance(holder, dict):
        raise _missing(place)
    if not isinstance(holder.get("name"), str):
        raise _missing(f"{place}.name")
    schema = holder.get("schema")
    if not isinstance(schema, dict):
        raise _missing(f"{place}.schema")
    return _checked(Form(schema=schema, where=f"{place}.schema"))


def _checked(form: Form) -> Form:
    form.check()
    return form


def _missing(where: str) -> ApiError:
    message = f"Missing required parameter: '{where}'."
    return ApiError(400, message, where, "missing_required_parameter")


def _invalid(where: str, expected: str) -> ApiError:
    return ApiError(400, f"Invalid type for '{where}': {expected}.", where, "invalid_type")
