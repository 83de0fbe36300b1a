"""OpenAI's API as its clients see it."""

import asyncio
import gzip
import json
import socket
from collections.abc import Callable
from typing import Any

import openai
import pytest
import requests

from nginx_llm_lab.backends.llm.engine import Engine
from nginx_llm_lab.backends.llm.metrics import Metrics
from nginx_llm_lab.backends.llm.openai import work
from nginx_llm_lab.backends.llm.openai.api import OpenAi
from nginx_llm_lab.backends.llm.openai.call import parse_chat
from nginx_llm_lab.backends.llm.profiles import Profile
from nginx_llm_lab.backends.llm.runner import Runner
from nginx_llm_lab.backends.llm.settings import Settings
from tests.backends.serving import Running, http

HELLO = [{"role": "user", "content": "hello there my friend"}]
# a server whose one slot is soon taken: a token every 50 ms
NARROW = {"profile": Profile("narrow", 0.05, max_num_seqs=1)}


def call(**fields: Any) -> dict[str, Any]:
    """A chat's body."""
    return {"model": "lab-llm", "messages": HELLO, **fields}


def events(answer: requests.Response) -> list[Any]:
    """The events of a stream, the last one as it is."""
    parts = answer.content.decode().split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    return [json.loads(part[6:]) for part in parts[:-1]] + [parts[-1][6:]]


def chat(lab: Running, **fields: Any) -> requests.Response:
    """One chat completion."""
    return http.post(lab.url + "/v1/chat/completions", json=call(**fields))


def test_openais_own_client_works_unchanged(lab: Running):
    """Models, a whole answer, a stream, an error."""
    client = openai.OpenAI(base_url=lab.url + "/v1", api_key="none", max_retries=0)
    messages: Any = HELLO
    with client:
        assert [model.id for model in client.models.list()] == ["lab-llm"]
        complete = client.chat.completions.create(model="lab-llm", messages=messages, max_tokens=7)
        stream = client.chat.completions.create(
            model="lab-llm",
            messages=messages,
            max_tokens=7,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model="other", messages=messages)

    content = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert content == complete.choices[0].message.content
    assert complete.usage
    assert complete.usage.completion_tokens == 7
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens == complete.usage.total_tokens


def test_a_stream_is_one_event_a_token(lab: Running):
    """The role, n tokens, the reason, the usage, the end."""
    answer = chat(
        lab, max_tokens=3, ignore_eos=True, stream=True, stream_options={"include_usage": True}
    )

    streamed = events(answer)

    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    deltas = [event["choices"][0]["delta"] for event in streamed[:5]]
    assert [list(delta) for delta in deltas] == [
        ["role", "content"],
        ["content"],
        ["content"],
        ["content"],
        [],
    ]
    assert [event["choices"][0]["finish_reason"] for event in streamed[:5]] == [None] * 4 + [
        "length"
    ]
    assert [event["usage"] for event in streamed[:5]] == [None] * 5
    assert streamed[5]["choices"] == []
    assert streamed[5]["usage"]["completion_tokens"] == 3
    assert streamed[6] == "[DONE]"


@pytest.mark.parametrize("fields", [{"max_tokens": 3, "ignore_eos": True}, {"stop": "e"}])
def test_a_streamed_text_ends_with_its_last_token(lab: Running, fields: dict[str, Any]):
    """As vLLM's does: load tools take the time of every event as a token's."""
    asked = {"model": "lab-llm", "prompt": "x", **fields}
    whole = http.post(lab.url + "/v1/completions", json=asked).json()

    options = {"stream": True, "stream_options": {"include_usage": True}}
    *texts, usage, done = events(http.post(lab.url + "/v1/completions", json={**asked, **options}))

    choices = [event["choices"][0] for event in texts]
    (expected,) = whole["choices"]
    assert (
        len(choices) == usage["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    )
    assert "".join(choice["text"] for choice in choices) == expected["text"]
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons == [None] * (len(choices) - 1) + [expected["finish_reason"]]
    assert done == "[DONE]"


def test_every_event_is_a_chunk_of_its_own(lab: Running):
    """Events are never merged; the first one also has the role."""
    answer = http.post(
        lab.url + "/v1/completions",
        json={
            "model": "lab-llm",
            "prompt": "x",
            "max_tokens": 50,
            "ignore_eos": True,
            "stream": True,
        },
        stream=True,
    )

    chunks = list(answer.raw.read_chunked())

    assert [chunk.count(b"data: ") for chunk in chunks] == [1] * 51


def test_without_usage_asked_for_no_event_has_it(lab: Running):
    """No event contains usage, as with OpenAI."""
    assert all("usage" not in event for event in events(chat(lab, max_tokens=3, stream=True))[:-1])


@pytest.mark.parametrize("fields", [{}, {"logprobs": True}])
def test_every_event_may_have_the_usage_so_far(lab: Running, fields: dict[str, Any]):
    """vLLM's continuous_usage_stats, which load tools count tokens with; the text is the same."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = {"max_tokens": 3, "ignore_eos": True, "n": 2, "stream": True, **fields}

    streamed = events(chat(lab, **asked, stream_options=options))
    plain = events(chat(lab, **asked))

    for index in (0, 1):
        usages = [e["usage"] for e in streamed[:-2] if e["choices"][0]["index"] == index]
        assert [usage["completion_tokens"] for usage in usages] == [0, 1, 2, 3, 3]
        assert {usage["prompt_tokens"] for usage in usages} == {6}
        assert [usage["total_tokens"] for usage in usages] == [6, 7, 8, 9, 9]
    assert streamed[-2]["usage"]["completion_tokens"] == 6
    assert [e["choices"] for e in streamed[:-2]] == [e["choices"] for e in plain[:-1]]


def test_the_same_call_gets_the_same_answer_from_every_backend(start: Callable[..., Running]):
    """The answer depends on the seed and the prompt only."""
    answers = [
        chat(start(seed=seed), max_tokens=20, seed=extra).json()["choices"]
        for seed, extra in ((1, 0), (1, 0), (2, 0), (1, 1))
    ]

    assert answers[0] == answers[1]
    assert answers[0] != answers[2]
    assert answers[0] != answers[3]


@pytest.mark.parametrize(
    ("fields", "tokens", "reason"),
    [
        ({"max_tokens": 5, "ignore_eos": True}, 5, "length"),
        ({"max_completion_tokens": 1}, 1, "length"),
        ({"max_tokens": 4000, "min_tokens": 3000}, 3000, "stop"),
        ({"max_tokens": 4000, "ignore_eos": True}, 4000, "length"),
    ],
)
def test_an_answer_is_as_long_as_asked(
    lab: Running, fields: dict[str, Any], tokens: int, reason: str
):
    """max_tokens, its newer name, min_tokens, ignore_eos."""
    answer = chat(lab, **fields).json()

    assert answer["usage"]["completion_tokens"] == tokens
    assert answer["choices"][0]["finish_reason"] == reason


def test_a_header_sets_the_length_of_an_answer(lab: Running):
    """X-Lab-Output-Tokens sets it exactly."""
    headers = {"X-Lab-Output-Tokens": "321"}
    answer = http.post(lab.url + "/v1/chat/completions", json=call(), headers=headers).json()

    assert answer["usage"]["completion_tokens"] == 321
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_a_stop_text_ends_an_answer(lab: Running):
    """It is not part of what is shown."""
    complete = chat(lab, max_tokens=30, ignore_eos=True).json()["choices"][0]["message"]["content"]
    word = complete.split()[5]

    choice = chat(lab, max_tokens=30, ignore_eos=True, stop=word).json()["choices"][0]

    assert choice["message"]["content"] == complete[: complete.index(word)]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("length", [20, 6])
def test_a_stop_text_may_be_kept(lab: Running, length: int):
    """vLLM's field; also where the stop text ends the last token that fits."""
    fields: dict[str, Any] = {"max_tokens": length, "ignore_eos": True}
    complete = chat(lab, **fields).json()["choices"][0]["message"]["content"]
    word = complete.split()[5]

    fields |= {"stop": word, "include_stop_str_in_output": True}
    choice = chat(lab, **fields).json()["choices"][0]

    assert choice["message"]["content"] == complete[: complete.index(word) + len(word)]
    assert choice["finish_reason"] == "stop"


def test_several_choices_differ_and_are_counted_together(lab: Running):
    """`usage` counts the prompt once and every answer."""
    answer = chat(lab, n=3, max_tokens=10, ignore_eos=True).json()

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in answer["choices"]}) == 3
    assert answer["usage"]["completion_tokens"] == 30
    assert answer["usage"]["prompt_tokens"] == 6


def test_a_conversation_finds_its_own_past_in_the_cache(lab: Running):
    """The second turn's prompt opens with the first's, and its answer."""
    question = {"role": "user", "content": " ".join(["word"] * 100)}
    first = chat(lab, messages=[question], max_tokens=100, ignore_eos=True).json()
    answer = first["choices"][0]["message"]

    second = chat(lab, messages=[question, answer, HELLO[0]], max_tokens=1).json()

    assert first["usage"]["prompt_tokens"] == 102
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 192


def test_a_prompt_as_long_as_those_of_recorded_traces_is_answered(lab: Running):
    """Mooncake's have up to 126,000 tokens."""
    answer = chat(lab, messages=[{"role": "user", "content": "word " * 126_000}], max_tokens=1)

    assert answer.json()["usage"]["prompt_tokens"] >= 126_000


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "word " * 64}]}, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 40}], "max_tokens": 30}, "messages"),
    ],
)
def test_a_request_beyond_the_context_length_is_refused(
    start: Callable[..., Running], fields: dict[str, Any], param: str
):
    """Prompt and answer together."""
    answer = chat(start(max_model_len=64), **fields)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        param,
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, None),
        ("POST", "/v1/chat/completions", b"\xff", 400, None),
        ("POST", "/v1/chat/completions", b" " * 2_000_000, 413, None),
        ("GET", "/v1/chat/completions", None, 405, None),
        ("DELETE", "/v1/models", None, 405, None),
        ("GET", "/v1/models/other", None, 404, "model_not_found"),
        ("POST", "/v1/audio/speech", b"{}", 404, "unknown_url"),
        ("GET", "/tokenize", None, 405, None),
    ],
)
def test_errors_have_openais_shape(
    lab: Running, method: str, path: str, body: bytes | None, status: int, code: str | None
):
    """One object: message, type, param, code."""
    answer = http.request(method, lab.url + path, data=body)

    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat"])
def test_a_compressed_body_is_refused_with_a_remedy(lab: Running, path: str):
    """In the format of the API that was asked."""
    body = gzip.compress(json.dumps(call()).encode())

    answer = http.post(lab.url + path, data=body, headers={"Content-Encoding": "gzip"})

    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "identity")
    assert (error if path == "/chat" else error["message"]) == (
        'Content-Encoding "gzip" is not supported: send the body uncompressed'
    )


def test_a_call_leaves_its_figures_in_the_journal(lab: Running):
    """Tokens counted as the client's usage has them."""
    chat(lab, max_tokens=5, ignore_eos=True, stream=True)
    chat(lab, max_tokens=5, ignore_eos=True)

    for line, stream in zip(lab.lines(2), (True, False), strict=True):
        assert line["fate"] == "ok"
        assert line["stream"] == stream
        assert (line["prompt_tokens"], line["cached_tokens"]) == (6, 0)
        assert (line["completion_tokens"], line["tokens_sent"]) == (5, 5)
        assert 0 <= line["queued"] <= line["ttft"] <= line["duration"]


def test_a_client_that_hangs_up_frees_its_slot(start: Callable[..., Running]):
    """The one behind it in the queue of one slot is answered, long before the first would end."""
    lab = start(**NARROW)
    long = lab.begin("/v1/chat/completions", call(max_tokens=2000, ignore_eos=True, stream=True))
    long.close()

    assert chat(lab, max_tokens=1).ok
    gone, answered = lab.lines(2)
    assert (gone["status"], gone["fate"], answered["fate"]) == (200, "client_gone", "ok")
    assert 1 <= gone["tokens_sent"] <= gone["completion_tokens"] < 2000
    assert lab.service.lab.runner.engine.running == 0


def test_a_client_that_disconnects_in_the_queue_is_removed(start: Callable[..., Running]):
    """It never had a slot, nor a token."""
    lab = start(**NARROW)
    first = lab.begin("/v1/chat/completions", call(max_tokens=2000, ignore_eos=True, stream=True))
    with pytest.raises(requests.ReadTimeout):
        http.post(lab.url + "/v1/chat/completions", json=call(max_tokens=1), timeout=0.1)

    line = lab.lines(1)[0]
    first.close()

    assert (line["status"], line["fate"]) == (499, "client_gone")
    assert (line["queued"], line["ttft"], line["completion_tokens"]) == (None, None, 0)


def test_a_full_queue_refuses_with_retry_after(start: Callable[..., Running]):
    """One slot, one place in the queue: the third call is refused, in OpenAI's shape."""
    lab = start(profile=Profile("narrow", 0.05, max_num_seqs=1, max_queued=1, queue_status=429))
    asked = call(max_tokens=2000, ignore_eos=True, stream=True)
    first = lab.begin("/v1/chat/completions", asked)
    waiting = socket.create_connection(("127.0.0.1", lab.port))
    content = json.dumps(asked).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}"
    waiting.sendall(head.encode() + b"\r\n\r\n" + content)
    while not lab.service.lab.runner.engine.queue_is_full:
        assert http.get(lab.url + "/health").ok

    answer = chat(lab, max_tokens=1)

    waiting.close()
    first.close()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.json()["error"]["type"] == "rate_limit_error"


def test_a_prompt_that_the_cache_cannot_hold_is_refused(start: Callable[..., Running]):
    """Four blocks are 64 tokens, whatever the model's own limit is."""
    lab = start(profile=Profile("small", kv_blocks=4))

    answer = chat(lab, messages=[{"role": "user", "content": "word " * 70}])

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_the_answers_of_one_request_have_a_limit(lab: Running, monkeypatch: pytest.MonkeyPatch):
    """128 prompts with 128 choices of 16,384 tokens would fill the container's memory."""
    monkeypatch.setattr(work, "MOST_PLANNED", 1000)
    long = {"max_tokens": 250, "ignore_eos": True}

    within = chat(lab, n=4, **long)
    beyond = chat(lab, n=5, **long)

    assert within.json()["usage"]["completion_tokens"] == 1000
    assert beyond.status_code == 400
    assert "may have 1000 tokens in all" in beyond.json()["error"]["message"]


def test_others_have_their_turns_while_long_answers_are_planned():
    """Due tokens are sent, and arrivals are recorded in time."""
    settings = Settings("backend-1")
    runner = Runner(Engine(settings.profile))
    api = OpenAi(settings, runner, Metrics(settings.model))
    answers = parse_chat(call(n=16, max_tokens=8192, ignore_eos=True), "lab-llm", 8192)

    async def turns_of_others() -> int:
        turns = 0
        planning = asyncio.create_task(api._planned(answers, None))
        while not planning.done():
            await asyncio.sleep(0)
            turns += 1
        assert [len(answer.pieces) for answer in await planning] == [8192] * 16
        return turns

    assert asyncio.run(turns_of_others()) >= 16
