"""The published description is true."""

from typing import Any

import jsonschema_rs
import pytest

from tests.backends.serving import Running, http

CHAT = {"model": "lab-llm", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NAMED = {"name": "n", "schema": {"type": "array"}}
TEXT = {"model": "lab-llm", "prompt": "hi", "max_tokens": 2}


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("get", "/health", None),
        ("get", "/v1/models", None),
        ("post", "/chat", {"message": "x"}),
        ("post", "/chat", {}),
        ("post", "/v1/chat/completions", CHAT),
        ("post", "/v1/chat/completions", {**CHAT, "n": 0}),
        ("post", "/v1/chat/completions", {**CHAT, "max_tokens": 99_999}),
        ("post", "/v1/completions", {**TEXT, "prompt": ["x"] * 129}),
        ("post", "/v1/completions", {**TEXT, "prompt": ["x"] * 9, "n": 8}),
        ("post", "/v1/completions", {**TEXT, "prompt": ["x"] * 9, "n": 9}),
        ("post", "/v1/completions", {**TEXT, "prompt": ["x"] * 8, "n": 9}),
        ("post", "/v1/completions", {**TEXT, "prompt": [1, -1]}),
        ("post", "/v1/completions", {**TEXT, "suffix": ""}),
        ("post", "/v1/completions", {**TEXT, "suffix": "z"}),
        ("post", "/v1/completions", {**TEXT, "response_format": {"type": "json_object"}}),
        ("post", "/v1/completions", {**TEXT, "response_format": {"type": "xml"}}),
        ("post", "/v1/chat/completions", {**CHAT, "stream_options": {}}),
        ("post", "/v1/chat/completions", {**CHAT, "tools": [TOOL], "tool_choice": "required"}),
        ("post", "/v1/chat/completions", {**CHAT, "tools": [TOOL], "max_tokens": 50}),
        ("post", "/v1/chat/completions", {**CHAT, "tool_choice": "required"}),
        ("post", "/v1/chat/completions", {**CHAT, "tools": [{"type": "function"}]}),
        ("post", "/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
        (
            "post",
            "/v1/chat/completions",
            {**CHAT, "response_format": {"type": "json_schema", "json_schema": NAMED}},
        ),
        ("post", "/v1/chat/completions", {**CHAT, "response_format": {"type": "json_schema"}}),
        ("post", "/v1/chat/completions", {**CHAT, "response_format": {"type": "xml"}}),
        ("post", "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 3}),
        ("post", "/v1/chat/completions", {**CHAT, "top_logprobs": 3}),
        ("post", "/v1/completions", {**TEXT, "logprobs": 2}),
        ("post", "/v1/completions", {**TEXT, "logprobs": 6}),
        ("post", "/v1/embeddings", {"model": "lab-llm", "input": ["a", "b"]}),
        ("post", "/v1/embeddings", {"model": "lab-llm", "input": "a", "encoding_format": "hex"}),
        ("post", "/v1/embeddings", {"model": "lab-llm", "input": []}),
        ("post", "/v1/responses", {"model": "lab-llm", "input": "a", "max_output_tokens": 2}),
        ("post", "/v1/responses", {"model": "lab-llm", "input": "a", "background": True}),
        ("post", "/tokenize", {"prompt": "a b"}),
        ("post", "/tokenize", {"messages": CHAT["messages"], "return_token_strs": True}),
        ("post", "/tokenize", {"messages": CHAT["messages"], "prompt": "a"}),
        ("post", "/v1/completions", TEXT),
        ("post", "/v1/completions", {**TEXT, "echo": True, "logprobs": 1}),
        ("post", "/v1/completions", {**TEXT, "model": "x"}),
    ],
)
def test_calls_are_accepted_and_answered_as_described(
    lab: Running, method: str, path: str, content: dict[str, Any] | None
):
    """A body is accepted exactly if its schema says so; every answer matches its own."""
    document = http.get(lab.url + "/openapi.json").json()
    operation = document["paths"][path][method]

    answer = http.request(method, lab.url + path, json=content)

    described = operation["responses"][str(answer.status_code)]["content"]["application/json"]
    jsonschema_rs.validate({**document, **described["schema"]}, answer.json())
    if content is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        valid = jsonschema_rs.is_valid(schema, content)
        assert valid == answer.ok
