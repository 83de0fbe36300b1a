"""Embeddings and token counts."""

import math
from typing import Any

import openai
import pytest

from nginx_llm_lab.backends.llm.openai.embedding import token_id, vector
from nginx_llm_lab.backends.llm.openai.text import tokens
from tests.backends.serving import Running, http


def cosine(one: list[float], other: list[float]) -> float:
    """The cosine of the angle between two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_a_vector_has_length_one_and_depends_on_the_words():
    """Texts with common words are closer than texts without; case does not matter."""
    house = vector(tokens("The red house"), 384)

    near = cosine(house, vector(tokens("the red car"), 384))
    far = cosine(house, vector(tokens("cats sleep well"), 384))

    assert near > far + 0.3
    assert math.hypot(*vector(tokens("a b c"), 16)) == pytest.approx(1)
    assert math.hypot(*vector((), 3)) == 1


def test_openais_client_gets_embeddings(lab: Running):
    """The SDK asks for base64 and decodes it: the same numbers as in JSON."""
    with openai.OpenAI(base_url=lab.url + "/v1", api_key="none", max_retries=0) as client:
        decoded = client.embeddings.create(model="lab-llm", input=["hello there", "you"])
        plain = client.embeddings.create(
            model="lab-llm", input="hello there", encoding_format="float"
        )
        short = client.embeddings.create(model="lab-llm", input="hello there", dimensions=7)

    assert [item.index for item in decoded.data] == [0, 1]
    assert decoded.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert decoded.data[0].embedding != decoded.data[1].embedding
    assert (decoded.usage.prompt_tokens, decoded.usage.total_tokens) == (3, 3)
    assert len(short.data[0].embedding) == 7
    assert lab.service.lab.runner.engine.running == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": [3, "a"]}, "input[1]"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "word " * 140_000}, "input"),
    ],
)
def test_a_wrong_call_for_embeddings_names_the_invalid_field(
    lab: Running, fields: dict[str, Any], param: str
):
    """The field at fault, in OpenAI's shape."""
    answer = http.post(lab.url + "/v1/embeddings", json={"model": "lab-llm", **fields})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_tokenize_counts_what_usage_counts(lab: Running):
    """The number of a chat's prompt tokens, and the text of each."""
    asked = {"model": "lab-llm", "messages": [{"role": "user", "content": "hello there"}]}
    usage = http.post(lab.url + "/v1/chat/completions", json={**asked, "max_tokens": 1}).json()

    answer = http.post(lab.url + "/tokenize", json={**asked, "return_token_strs": True}).json()

    assert answer["count"] == usage["usage"]["prompt_tokens"] == len(answer["tokens"])
    assert "".join(answer["token_strs"]) == "<|user|>hello there<|assistant|>"
    assert answer["tokens"] == [token_id(token) for token in answer["token_strs"]]


def test_tokenize_takes_a_text_without_a_model(lab: Running):
    """As vLLM does; another model's name is refused."""
    answer = http.post(lab.url + "/tokenize", json={"prompt": "one two"}).json()
    other = http.post(lab.url + "/tokenize", json={"prompt": "one two", "model": "x"})

    assert (answer["count"], answer["token_strs"]) == (2, None)
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")
