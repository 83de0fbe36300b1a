"""OpenAI's API through nginx: clients that know nothing of the lab work unchanged."""

import json
import sys
from pathlib import Path

import jsonschema
import openai
import pytest
import requests

from nginx_llm_lab.stack import compose, faults, nginx
from nginx_llm_lab.stack.shell import run
from tests import tools
from tests.outline import Outline

MODEL = "lab-llm"
HELLO = [{"role": "user", "content": "Say something."}]
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
TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
LOCK = Path(__file__).with_name("llm_tool.lock")


@pytest.fixture(scope="module")
def client(lab):
    """OpenAI's own SDK, configured with the front door's address alone."""
    lab.use("round_robin")
    with openai.OpenAI(base_url=f"{lab.lab.front}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def tool():
    """The environment of an independent load tool."""
    return tools.environment(LOCK)


def refused(call, **fields) -> openai.APIStatusError:
    """The error that a call with these fields gets."""
    with pytest.raises(openai.APIStatusError) as caught:
        call(**{"model": MODEL, **fields})
    return caught.value


def test_the_sdk_lists_the_model(client):
    """One model, under the name that calls use."""
    assert [model.id for model in client.models.list()] == [MODEL]


def test_the_sdk_gets_a_whole_chat(client):
    """Text, the reason of its end, and usage that adds up."""
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=12)

    choice, usage = answer.choices[0], answer.usage
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert 1 <= usage.completion_tokens <= 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_the_sdk_streams_a_chat(client):
    """One event a token, usage last; together they are the answer that comes whole."""
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 12}
    complete = client.chat.completions.create(**asked)

    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options=options))

    pieces = [piece for chunk in chunks for c in chunk.choices if (piece := c.delta.content)]
    assert "".join(pieces) == complete.choices[0].message.content
    assert chunks[-1].choices == []
    assert len(pieces) == chunks[-1].usage.completion_tokens == complete.usage.completion_tokens


def test_the_sdk_gets_a_completion_whole_and_streamed(client):
    """The older API, on a prompt instead of messages."""
    asked = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8}
    complete = client.completions.create(**asked)

    chunks = client.completions.create(**asked, stream=True)

    pieces = [choice.text for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == complete.choices[0].text
    assert complete.object == "text_completion"


@pytest.mark.parametrize("choice", ["auto", "required", TOOL | {"function": {"name": "weather"}}])
def test_the_sdk_gets_a_tool_call(client, choice):
    """Its arguments are valid against the tool's schema; streamed, they are the same."""
    asked = {"model": MODEL, "messages": HELLO, "tools": [TOOL], "tool_choice": choice}
    complete = client.chat.completions.create(**asked).choices[0]

    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]

    (call,) = complete.message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), WEATHER)
    assert (call.function.name, complete.finish_reason) == ("weather", "tool_calls")
    assert streamed.message.tool_calls[0].function.arguments == call.function.arguments
    assert streamed.finish_reason == "tool_calls"


def test_the_sdk_gets_log_probabilities(client):
    """A token a place, the asked-for number of the likeliest beside each."""
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 6}

    choice = client.chat.completions.create(**asked, logprobs=True, top_logprobs=1).choices[0]

    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens) == choice.message.content
    assert all(len(token.top_logprobs) == 1 and token.logprob <= 0 for token in tokens)


def test_the_sdk_gets_embeddings(client):
    """A vector for each input, in order, and the tokens that they have together."""
    answer = client.embeddings.create(model=MODEL, input=["hello there", "you"])

    assert [item.index for item in answer.data] == [0, 1]
    assert len({len(item.embedding) for item in answer.data}) == 1
    assert answer.usage.prompt_tokens == 3


def test_the_sdk_parses_structured_output(client):
    """`parse` sends a pydantic model's schema and gets an instance of the model."""
    messages = [{"role": "user", "content": "Plan my day."}]

    answer = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Outline)

    assert isinstance(answer.choices[0].message.parsed, Outline)


def test_the_sdk_creates_streams_and_parses_responses(client):
    """The newer API: one delta for each token, and a pydantic model's instance."""
    asked = {"model": MODEL, "input": "Plan my day."}
    complete = client.responses.create(**asked)

    with client.responses.stream(**asked) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()

    assert "".join(deltas) == final.output_text == complete.output_text
    assert len(deltas) == final.usage.output_tokens
    parsed = client.responses.parse(**asked, text_format=Outline)
    assert isinstance(parsed.output_parsed, Outline)


def test_the_same_prompt_is_found_in_the_cache(lab, client):
    """A backend that has seen a prompt says how much of it it knew: all full blocks of 16."""
    lab.use("prompt_prefix")
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 100}]}

    first = client.chat.completions.create(**asked, max_tokens=1).usage
    again = client.chat.completions.create(**asked, max_tokens=1).usage

    assert first.prompt_tokens == again.prompt_tokens
    assert again.prompt_tokens_details.cached_tokens == (again.prompt_tokens - 1) // 16 * 16


@pytest.mark.parametrize(
    ("fields", "kind", "param", "code"),
    [
        (
            {"model": "gpt-unknown", "messages": HELLO},
            openai.NotFoundError,
            "model",
            "model_not_found",
        ),
        (
            {"messages": HELLO, "max_tokens": "ten"},
            openai.BadRequestError,
            "max_tokens",
            "invalid_type",
        ),
        ({"messages": "hello"}, openai.BadRequestError, "messages", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": "word " * 140_000}]},
            openai.BadRequestError,
            "messages",
            "context_length_exceeded",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_sdk_understands_every_error(client, fields, kind, param, code, stream):
    """Nginx hands on the backend's status and body; the SDK raises its own exception for it."""
    error = refused(client.chat.completions.create, **fields, stream=stream)

    assert type(error) is kind
    assert (error.param, error.code) == (param, code)
    assert error.type == "invalid_request_error"
    assert error.response.headers["X-Upstream"]


def test_a_body_that_is_no_json_is_an_error_of_openais_shape(lab):
    """Nothing that reads OpenAI's errors is surprised."""
    answer = requests.post(f"{lab.lab.front}/v1/chat/completions", data=b"{", timeout=10)

    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_that_nginx_refuses_is_an_error_of_openais_shape(lab, client):
    """413 from nginx itself: the SDK reads its type as it reads a backend's."""
    huge = [{"role": "user", "content": "x" * 1_100_000}]

    error = refused(client.chat.completions.create, messages=huge)
    elsewhere = requests.post(f"{lab.lab.front}/chat", data=b"x" * 1_100_000, timeout=10)

    assert (error.status_code, error.type) == (413, "invalid_request_error")
    assert error.body == {
        "message": "nginx answered 413",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
    assert elsewhere.json()["error"] == "nginx answered 413"


@pytest.mark.parametrize("kind", ["kill", "cut"])
def test_unreachable_backends_are_an_error_of_openais_shape(lab, client, kind):
    """nginx answers 502 if the connection is refused, 504 if nobody answers in time."""
    faults.fault(lab.lab, "all", kind)
    try:
        error = refused(client.chat.completions.create, messages=HELLO)
    finally:
        faults.heal(lab.lab)
        # nginx holds every server to be down for its fail_timeout, unless it starts anew
        lab.use("round_robin")

    assert error.status_code in (502, 504)
    assert error.response.json()["error"]["message"] == f"nginx answered {error.status_code}"
    assert error.type == "server_error"


def test_curl_streams_events_as_they_are(lab):
    """`curl -N`: an event a line with an empty one after it, [DONE] at the end."""
    asked = {"model": MODEL, "messages": HELLO, "stream": True, "max_tokens": 5, "ignore_eos": True}
    url = "http://127.0.0.1:8080/v1/chat/completions"
    text = compose.execute(lab.lab, "nginx", ["curl", "-sSN", url, "-d", json.dumps(asked)])

    events = text.split("\n\n")

    assert events.pop() == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert events.pop() == "data: [DONE]"
    deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events]
    assert sum(bool(delta.get("content")) for delta in deltas) == 5


@pytest.mark.parametrize("mode", ["streaming", "non_streaming"])
def test_a_load_tool_from_elsewhere_works_unchanged(lab, tool, tmp_path, mode):
    """infermark, which never heard of nginx: all its requests succeed, each seen by nginx."""
    lab.use("round_robin")
    mark, report = nginx.log_size(lab.lab), tmp_path / "report.json"
    load = ["-n", "30", "-c", "1,10", "--max-tokens", "16", "--warmup", "0", "--mode", mode]
    words = ["run", f"{lab.lab.front}/v1", "-m", MODEL, *load, "-o", str(report)]

    run([sys.executable, "-m", "infermark.cli", *words], env=tool)

    results = json.loads(report.read_text())["results"]
    log = [json.loads(line) for line in nginx.log_with(lab.lab, mark, 60).splitlines()]
    assert [(result["n_success"], result["n_error"]) for result in results] == [(30, 0), (30, 0)]
    assert [line["status"] for line in log] == ["200"] * 60
    assert all(result["tokens_per_second"] > 0 for result in results)
