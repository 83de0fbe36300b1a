"""OpenAI's Responses API as its own client sees it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import openai
import pydantic
import pytest
from openai.types import responses

from tests.backends.serving import Running, http
from tests.backends.test_structured import WEATHER
from tests.outline import Outline

TOOL: Any = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}
FORMAT: Any = {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER}}
ASKED: Any = {"model": "lab-llm", "input": "How is the weather?"}
SAID: Any = [
    {"role": "user", "content": [{"type": "input_text", "text": "How is the weather?"}]},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
]


@pytest.fixture
def client(lab: Running) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=lab.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def sse(lab: Running, **fields: Any) -> list[Any]:
    """The events of a streamed response; each has the name that its data says."""
    answer = http.post(lab.url + "/v1/responses", json={**ASKED, "stream": True, **fields})
    blocks = answer.text.split("\n\n")
    assert blocks.pop() == ""
    lines = [block.split("\n") for block in blocks]
    events = [json.loads(data.removeprefix("data: ")) for _, data in lines]
    assert [name for name, _ in lines] == [f"event: {event['type']}" for event in events]
    return events


def test_a_response_has_all_fields_that_openai_requires(lab: Running):
    """Validated strictly against the SDK's own model; the usage adds up."""
    answer = http.post(lab.url + "/v1/responses", json={**ASKED, "max_output_tokens": 12}).json()

    read = responses.Response.model_validate(answer)
    assert read.output_text
    assert read.usage
    assert read.usage.total_tokens == read.usage.input_tokens + read.usage.output_tokens
    assert read.max_output_tokens == 12


def test_a_response_and_a_chat_completion_are_the_same_text(client: openai.OpenAI):
    """One model behind both: the same prompt, tokens and seed."""
    chat = client.chat.completions.create(
        model="lab-llm", messages=[{"role": "user", "content": ASKED["input"]}], max_tokens=9
    )

    response = client.responses.create(**ASKED, max_output_tokens=9)

    assert response.output_text == chat.choices[0].message.content
    assert response.usage
    assert chat.usage
    assert response.usage.input_tokens == chat.usage.prompt_tokens


@pytest.mark.parametrize(
    "fields", [{}, {"max_output_tokens": 3}, {"tools": [TOOL]}, {"text": FORMAT}], ids=str
)
def test_a_stream_is_numbered_and_ends_with_the_whole_response(
    lab: Running, fields: Mapping[str, Any]
):
    """One delta a token; the last event carries the response that is not streamed otherwise."""
    events = sse(lab, **fields)

    complete = http.post(lab.url + "/v1/responses", json={**ASKED, **fields}).json()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    last = events[-1]
    assert last["type"] == f"response.{complete['status']}"
    changing = ("id", "created_at", "output", "usage")
    kept = {name: value for name, value in complete.items() if name not in changing}
    assert {name: last["response"][name] for name in kept} == kept
    deltas = [event["delta"] for event in events if event["type"].endswith(".delta")]
    assert (
        len(deltas)
        == last["response"]["usage"]["output_tokens"]
        == complete["usage"]["output_tokens"]
    )
    (item,) = complete["output"]
    content = item["arguments"] if fields.get("tools") else item["content"][0]["text"]
    assert "".join(deltas) == content


def test_every_event_is_one_that_openai_knows(lab: Running):
    """Validated strictly against the SDK's own models, for text and for a tool's call."""
    known: Any = pydantic.TypeAdapter(responses.ResponseStreamEvent)

    for event in [*sse(lab), *sse(lab, tools=[TOOL])]:
        known.validate_python(event)


def test_the_sdk_puts_a_stream_together(client: openai.OpenAI):
    """Its own accumulation of the events is the response."""
    with client.responses.stream(**ASKED) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()

    assert {"response.output_text.delta", "response.completed"} <= kinds
    assert final.output_text == client.responses.create(**ASKED).output_text


def test_the_sdk_parses_a_response(client: openai.OpenAI):
    """`parse` sends a pydantic model's schema and gets an instance of the model."""
    answer = client.responses.parse(**ASKED, text_format=Outline)

    assert isinstance(answer.output_parsed, Outline)


def test_a_tool_is_called_after_a_user_and_answered_after_its_result(client: openai.OpenAI):
    """The arguments are valid; a conversation that ends with a tool's result gets text."""
    (call,) = client.responses.create(**ASKED, tools=[TOOL]).output
    after = client.responses.create(model="lab-llm", input=SAID, tools=[TOOL])

    assert call.type == "function_call"
    jsonschema.validate(json.loads(call.arguments), WEATHER)
    assert after.output_text


def test_only_an_allowed_tool_is_called(client: openai.OpenAI):
    """This API's form of the choice; the response repeats it."""
    other: Any = {"type": "function", "name": "other", "parameters": {"type": "object"}}
    choice: Any = {"type": "allowed_tools", "mode": "required"}
    choice["tools"] = [{"type": "function", "name": "other"}]

    for number in range(10):
        answer = client.responses.create(
            model="lab-llm", input=f"Question {number}?", tools=[TOOL, other], tool_choice=choice
        )
        (call,) = answer.output
        assert call.type == "function_call"
        assert call.name == "other"
    assert answer.to_dict()["tool_choice"] == choice


def test_instructions_and_tools_are_part_of_the_prompt(lab: Running):
    """As a system message and as definitions, before the input."""

    def prompt_tokens(**fields: Any) -> int:
        answer = http.post(lab.url + "/v1/responses", json={**ASKED, **fields}).json()
        return int(answer["usage"]["input_tokens"])

    plain = prompt_tokens()
    assert prompt_tokens(instructions="Be brief.") == plain + 3
    assert prompt_tokens(tools=[TOOL]) > plain + 20


def test_an_answer_that_is_cut_is_incomplete(client: openai.OpenAI):
    """With the reason."""
    answer = client.responses.create(**ASKED, max_output_tokens=1)

    assert answer.status == "incomplete"
    assert answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_the_probabilities_of_a_text_are_those_of_a_chat_completion(lab: Running):
    """Only if they are included; the deltas have the same ones, piece by piece."""
    asked = {"max_output_tokens": 4, "ignore_eos": True, "top_logprobs": 2}
    included = {**asked, "include": ["message.output_text.logprobs"]}
    messages = [{"role": "user", "content": ASKED["input"]}]
    body = {"model": "lab-llm", "messages": messages, "max_tokens": 4, "ignore_eos": True}
    probable = {"logprobs": True, "top_logprobs": 2}

    chat = http.post(lab.url + "/v1/chat/completions", json={**body, **probable}).json()
    answer = http.post(lab.url + "/v1/responses", json={**ASKED, **included}).json()
    plain = http.post(lab.url + "/v1/responses", json={**ASKED, **asked}).json()
    streamed = sse(lab, **included)

    expected = chat["choices"][0]["logprobs"]["content"]
    deltas = [event["logprobs"] for event in streamed if event["type"].endswith("text.delta")]
    assert [len(token["top_logprobs"]) for token in expected] == [2] * 4
    assert answer["output"][0]["content"][0]["logprobs"] == expected
    assert answer["top_logprobs"] == 2
    assert plain["output"][0]["content"][0]["logprobs"] == []
    assert deltas == [[token] for token in expected]
    assert streamed[-1]["response"]["output"][0]["content"] == answer["output"][0]["content"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"input": "word " * 140_000}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_what_is_wrong_is_named(lab: Running, fields: Mapping[str, Any], param: str):
    """400 with the field, in OpenAI's shape."""
    answer = http.post(lab.url + "/v1/responses", json={**ASKED, **fields})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("kind", ["item_reference", "reasoning", "web_search_call"])
def test_an_item_that_is_not_supported_is_named(lab: Running, kind: str):
    """Which one, and what may stand there instead."""
    items = [*SAID, {"type": kind, "id": "x"}]

    error = http.post(lab.url + "/v1/responses", json={**ASKED, "input": items}).json()["error"]

    assert (error["param"], error["code"]) == ("input[3].type", "invalid_value")
    assert "'function_call_output'" in error["message"]
