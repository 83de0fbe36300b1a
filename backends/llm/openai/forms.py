"""The form of an answer, read from a request's fields: plain text, JSON, or a tool call."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..schema import example
from .api_error import ApiError, missing

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the client offers; `parameters` is the JSON Schema of its arguments."""

    name: str
    parameters: object


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer.

    `schema` is the JSON Schema of a JSON answer; one of `tools` is called. Without either, the
    answer is text. `where` is the request's field that an error names. With `bare`, the schema
    allows only strings, and the answer is such a string without its quotes.
    """

    schema: object = None
    tools: tuple[Tool, ...] = ()
    where: str = ""
    bare: bool = False

    @property
    def is_text(self) -> bool:
        """Whether the answer is plain text."""
        return self.schema is None and not self.tools

    def content(self, seed: int) -> tuple[str, str]:
        """Generate the tool's name ("" for none) and the JSON of the answer.

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
            value = example.value(schema, seed)
            text = str(value) if self.bare else _encode(value)
        except (example.SchemaError, ValueError) as error:
            raise self._refusal(str(error)) from None
        if not text:
            raise self._refusal("it allows an empty answer")
        return text

    def _refusal(self, why: str) -> ApiError:
        message = f"Invalid schema for '{self.where}': {why}."
        return ApiError(400, message, self.where, "invalid_json_schema")


TEXT = Form()
_JSON_OBJECT = Form({"type": "object", "minProperties": 1})
_GUIDES = ("json", "regex", "choice", "json_object", "grammar", "structural_tag")
_NOTHING = (None, False)


def chat_form(body: Mapping[str, object], last_role: str) -> Form:
    """Read `tools`, `tool_choice` and `response_format` of a chat; raises ApiError.

    If the model may choose ("auto"), it calls a tool after a user's message, and answers in text
    or JSON after a tool's result.
    """
    tools = [_chat_tool(tool, f"tools[{index}]") for index, tool in _numbered(body, "tools")]
    chosen = _chosen(body.get("tool_choice"), tools, last_role, _chat_function_name)
    if chosen:
        return _checked(Form(tools=tuple(chosen), where="tools"))
    return text_form(body)


def text_form(body: Mapping[str, object]) -> Form:
    """Read `response_format`, or vLLM's own fields for guided output; raises ApiError."""
    form = body.get("response_format")
    formatted = TEXT if form is None else _format(form, "response_format", "json_schema")
    return _guided_form(body) if formatted.is_text else formatted


def _guided_form(body: Mapping[str, object]) -> Form:
    """Read vLLM's own fields, `structured_outputs` or `guided_…`; raises ApiError."""
    given = [(where, kind, value) for where, kind, value in _guides(body) if value not in _NOTHING]
    if not given:
        return TEXT
    if len(given) > 1:
        message = f"Only one of '{given[0][0]}' and '{given[1][0]}' is allowed."
        raise ApiError(400, message, given[1][0], "invalid_value")
    ((where, kind, value),) = given
    if kind == "json_object":
        return _JSON_OBJECT
    if kind == "json":
        return _checked(Form(_schema(value, where), where=where))
    if kind == "regex" and isinstance(value, str):
        schema = {"type": "string", "pattern": f"^(?:{value})$"}
        return _checked(Form(schema, where=where, bare=True))
    if kind == "choice" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return _checked(Form({"enum": value}, where=where, bare=True))
    if kind in ("regex", "choice"):
        expected = "a string" if kind == "regex" else "an array of strings"
        raise _invalid(where, f"expected {expected}")
    message = f"Unsupported parameter: '{where}' is not supported with this model."
    raise ApiError(400, message, where, "unsupported_parameter")


def _guides(body: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    """Each of vLLM's fields for guided output: its place, kind and value."""
    options = body.get("structured_outputs")
    if options is not None and not isinstance(options, dict):
        raise _invalid("structured_outputs", "expected an object")
    for kind in _GUIDES:
        yield f"structured_outputs.{kind}", kind, (options or {}).get(kind)
        yield f"guided_{kind}", kind, body.get(f"guided_{kind}")


def _schema(value: object, where: str) -> object:
    """A JSON Schema, which vLLM also takes as text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise _invalid(where, "expected a JSON Schema") from None


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
        raise missing(where)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise missing(f"{where}.name")
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


def _chat_function_name(choice: Mapping[str, object]) -> object:
    function = choice.get("function")
    return function.get("name") if isinstance(function, dict) else None


def _chosen(
    choice: object,
    tools: list[Tool],
    last_role: str,
    name_of: Callable[[Mapping[str, object]], object],
) -> list[Tool]:
    """The tools of which the answer calls one; empty if it calls none."""
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        mode, allowed = _allowed(choice, tools, name_of)
        return _chosen(mode, allowed, last_role, name_of)
    if isinstance(choice, dict) and choice.get("type") == "function":
        name = name_of(choice)
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


def _allowed(
    choice: Mapping[str, object],
    tools: list[Tool],
    name_of: Callable[[Mapping[str, object]], object],
) -> tuple[object, list[Tool]]:
    """The mode of a choice of `allowed_tools`, and those tools; a chat nests both in a field."""
    options = choice.get("allowed_tools", choice)
    listed = options.get("tools") if isinstance(options, dict) else None
    if not isinstance(options, dict) or not isinstance(listed, list):
        raise missing("tool_choice.allowed_tools.tools")
    if options.get("mode") not in ("auto", "required"):
        message = "Invalid value for 'tool_choice' mode: expected 'auto' or 'required'."
        raise ApiError(400, message, "tool_choice", "invalid_value")
    names = [name_of(tool) for tool in listed if isinstance(tool, dict)]
    return options["mode"], [tool for tool in tools if tool.name in names]


def _format(form: object, where: str, nested: str) -> Form:
    if not isinstance(form, dict):
        raise _invalid(where, "expected an object")
    kind = form.get("type")
    if kind == "text":
        return TEXT
    if kind == "json_object":
        return _JSON_OBJECT
    if kind != "json_schema":
        allowed = "'text', 'json_object', 'json_schema'"
        message = f"Invalid value: '{kind}'. Supported values are: {allowed}."
        raise ApiError(400, message, f"{where}.type", "invalid_value")
    holder = form.get(nested) if nested else form
    place = f"{where}.{nested}" if nested else where
    if not isinstance(holder, dict):
        raise missing(place)
    if not isinstance(holder.get("name"), str):
        raise missing(f"{place}.name")
    schema = holder.get("schema")
    if not isinstance(schema, dict):
        raise missing(f"{place}.schema")
    return _checked(Form(schema=schema, where=f"{place}.schema"))


def _checked(form: Form) -> Form:
    form.check()
    return form


def _invalid(where: str, expected: str) -> ApiError:
    return ApiError(400, f"Invalid type for '{where}': {expected}.", where, "invalid_type")
