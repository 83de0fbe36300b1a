"""Tool calls and JSON in chat completions, whole and streamed."""

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
import openai
import pytest

from tests.backends.serving import Running, http
from tests.outline import Outline

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]
FORMAT = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}
NAMED = {"type": "function", "function": {"name": "weather"}}
QUESTION = {"role": "user", "content": "How is the weather?"}


def chat(lab: Running, **fields: Any) -> Any:
    """The JSON of a chat completion that succeeds."""
    body = {"model": "lab-llm", "messages": [QUESTION], **fields}
    answer = http.post(lab.url + "/v1/chat/completions", json=body)
    assert answer.ok, answer.text
    return answer.json()


def events(lab: Running, **fields: Any) -> list[Any]:
    """The events of a streamed chat completion, with usage, without [DONE]."""
    more = {"stream": True, "stream_options": {"include_usage": True}}
    body = {"model": "lab-llm", "messages": [QUESTION], **more, **fields}
    parts = http.post(lab.url + "/v1/chat/completions", json=body).content.split(b"\n\n")
    assert parts[-2:] == [b"data: [DONE]", b""]
    return [json.loads(part.removeprefix(b"data: ")) for part in parts[:-2]]


def refusal(lab: Running, **fields: Any) -> Any:
    """The error of a chat completion that is answered with 400."""
    body = {"model": "lab-llm", "messages": [QUESTION], **fields}
    answer = http.post(lab.url + "/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


@pytest.mark.parametrize("seed", range(10))
def test_a_named_tool_is_called_with_valid_arguments(lab: Running, seed: int):
    """No content; the arguments are JSON that the tool's schema allows."""
    choice = chat(lab, tools=TOOLS, tool_choice=NAMED, seed=seed)["choices"][0]

    (call,) = choice["message"]["tool_calls"]
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER)
    assert call["function"]["name"] == "weather"
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_an_allowed_tool_is_called(lab: Running, mode: str):
    """The others stay in the prompt: their definitions are cached."""
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "now"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}

    for seed in range(10):
        answer = chat(lab, tools=TOOLS, tool_choice=choice, seed=seed)["choices"][0]
        assert answer["message"]["tool_calls"][0]["function"]["name"] == "now"


@pytest.mark.parametrize(
    ("fields", "called"),
    [
        ({"tool_choice": "required"}, True),
        ({"tool_choice": "auto"}, True),
        ({}, True),
        ({"tool_choice": "none"}, False),
        (
            {
                "messages": [
                    QUESTION,
                    {"role": "assistant", "content": None},
                    {"role": "tool", "tool_call_id": "x", "content": "rain"},
                ]
            },
            False,
        ),
    ],
)
def test_the_choice_decides_whether_a_tool_is_called(
    lab: Running, fields: Mapping[str, Any], called: bool
):
    """By default a tool is called after a user's message, not after a tool's result."""
    choice = chat(lab, tools=TOOLS, **fields)["choices"][0]

    assert ("tool_calls" in choice["message"]) == called
    assert (choice["finish_reason"] == "tool_calls") == called


def test_a_streamed_tool_call_is_one_event_a_token(lab: Running):
    """First the name, then the arguments piece by piece, then the reason, then the usage."""
    opening, *pieces, end, usage = events(lab, tools=TOOLS, tool_choice=NAMED)

    (call,) = opening["choices"][0]["delta"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": ""}
    assert (call["index"], call["type"]) == (0, "function")
    deltas = [piece["choices"][0]["delta"]["tool_calls"][0] for piece in pieces]
    text = "".join(delta["function"]["arguments"] for delta in deltas)
    jsonschema.validate(json.loads(text), WEATHER)
    assert end["choices"][0]["delta"] == {}
    assert end["choices"][0]["finish_reason"] == "tool_calls"
    assert usage["usage"]["completion_tokens"] == len(pieces)


def test_a_streamed_tool_call_is_the_whole_one(lab: Running):
    """The same call and the same usage; the journal's tokens are those of the usage."""
    complete = chat(lab, tools=TOOLS, tool_choice=NAMED)
    streamed = events(lab, tools=TOOLS, tool_choice=NAMED)

    (call,) = complete["choices"][0]["message"]["tool_calls"]
    calls = [event["choices"][0]["delta"].get("tool_calls") for event in streamed[:-2]]
    text = "".join(call[0]["function"]["arguments"] for call in calls)
    assert text == call["function"]["arguments"]
    assert calls[0][0]["id"] == call["id"]
    count = complete["usage"]["completion_tokens"]
    assert streamed[-1]["usage"]["completion_tokens"] == count
    assert [(n["completion_tokens"], n["tokens_sent"]) for n in lab.lines(2)] == [
        (count, count)
    ] * 2


def test_the_tools_are_part_of_the_prompt(lab: Running):
    """A model reads their definitions before the messages."""
    plain = chat(lab)["usage"]["prompt_tokens"]

    assert chat(lab, tools=TOOLS, tool_choice="none")["usage"]["prompt_tokens"] > plain + 50


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("stream", [False, True])
def test_a_json_schema_is_followed(lab: Running, seed: int, stream: bool):
    """The content is JSON that the schema allows."""
    if stream:
        streamed = events(lab, response_format=FORMAT, seed=seed)
        deltas = [event["choices"][0]["delta"] for event in streamed[:-1]]
        content = "".join(delta.get("content", "") for delta in deltas)
    else:
        content = chat(lab, response_format=FORMAT, seed=seed)["choices"][0]["message"]["content"]

    jsonschema.validate(json.loads(content), WEATHER)


def test_a_json_object_is_an_object(lab: Running):
    """Valid JSON, and something in it."""
    choice = chat(lab, response_format={"type": "json_object"})["choices"][0]

    value = json.loads(choice["message"]["content"])
    assert isinstance(value, dict)
    assert value
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"json": WEATHER}},
        {"guided_json": WEATHER},
        {"guided_json": json.dumps(WEATHER)},
        {"guided_json": WEATHER, "response_format": {"type": "text"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "w", "schema": WEATHER},
            }
        },
    ],
)
def test_vllms_own_fields_for_json_are_followed(lab: Running, fields: Any, seed: int):
    """Under the newer name and the older, and OpenAI's; in a chat and in a text completion."""
    content = chat(lab, seed=seed, **fields)["choices"][0]["message"]["content"]
    body = {"model": "lab-llm", "prompt": "x", "max_tokens": 500, "seed": seed, **fields}
    text = http.post(lab.url + "/v1/completions", json=body).json()["choices"][0]["text"]

    for answer in (content, text):
        jsonschema.validate(json.loads(answer), WEATHER)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_regex": r"\d{3}-[a-c]+|none"}, r"\d{3}-[a-c]+|none"),
        ({"structured_outputs": {"json_object": True, "regex": None}}, r"\{.+\}"),
    ],
)
def test_vllms_choices_and_patterns_are_followed(lab: Running, fields: Any, pattern: str):
    """The answer is one of them and nothing else: no quotes."""
    for seed in range(5):
        content = chat(lab, seed=seed, **fields)["choices"][0]["message"]["content"]
        assert re.fullmatch(pattern, content)


@pytest.mark.parametrize("fields", [{"tools": TOOLS}, {"response_format": FORMAT}])
def test_an_answer_beyond_max_tokens_is_cut_off(lab: Running, fields: Mapping[str, Any]):
    """The reason says so, as OpenAI's does: the JSON is not whole."""
    answer = chat(lab, max_tokens=1, **fields)

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": TOOLS, "tool_choice": "all"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}},
            "tool_choice.allowed_tools.tools",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "tools": []}},
            "tool_choice",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"guided_grammar": "root ::= x"}, "guided_grammar"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [1]}, "guided_choice"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_json": "{"}, "guided_json"),
        ({"structured_outputs": []}, "structured_outputs"),
        ({"structured_outputs": {"json": {}}, "guided_json": {}}, "guided_json"),
    ],
)
def test_a_wrong_form_gets_the_error_and_its_field(
    lab: Running, fields: Mapping[str, Any], param: str
):
    """The field at fault."""
    assert refusal(lab, **fields)["param"] == param


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9},
        {"type": "object", "minProperties": 10**9},
        {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
        {"type": "number", "minimum": 1e308, "multipleOf": 1e-308},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"$ref": "https://example.com/schema"},
        {"type": "text"},
    ],
    ids=json.dumps,
)
def test_a_schema_that_cannot_be_followed_is_refused(lab: Running, schema: Any):
    """Before anything is generated, however much it asks for."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}

    error = refusal(lab, response_format=form)

    assert (error["code"], error["param"]) == (
        "invalid_json_schema",
        "response_format.json_schema.schema",
    )


def test_openais_parse_returns_the_model(lab: Running):
    """The SDK sends pydantic's schema, strict, and validates the answer against it."""
    with openai.OpenAI(base_url=lab.url + "/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.parse(
            model="lab-llm",
            messages=[{"role": "user", "content": "Plan my day."}],
            response_format=Outline,
        )

    assert isinstance(answer.choices[0].message.parsed, Outline)
