"""Log probabilities of tokens, whole and streamed."""

import json
import math
from typing import Any

import pytest

from nginx_llm_lab.backends.llm.openai.logprobs import Logprobs
from tests.backends.serving import Running, http

MESSAGES = [{"role": "user", "content": "hello there"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "integer"}},
            "required": ["x"],
        },
    },
}


def answer(lab: Running, path: str, **fields: Any) -> list[Any]:
    """The choices of a completion that is not streamed, or of each event of a stream."""
    body = {"model": "lab-llm", "max_tokens": 5, "ignore_eos": True, **fields}
    reply = http.post(lab.url + path, json=body)
    assert reply.ok, reply.text
    if not fields.get("stream"):
        return list(reply.json()["choices"])
    events = reply.content.split(b"\n\n")[:-2]
    return [json.loads(event.removeprefix(b"data: "))["choices"][0] for event in events]


@pytest.mark.parametrize("top", [0, 1, 20])
def test_each_token_of_a_chat_has_its_probability(lab: Running, top: int):
    """The tokens make up the content; the likeliest is the token, the rest less likely."""
    asked = {"messages": MESSAGES, "logprobs": True, "top_logprobs": top}
    (choice,) = answer(lab, "/v1/chat/completions", **asked)

    listed = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in listed) == choice["message"]["content"]
    assert all(bytes(token["bytes"]).decode() == token["token"] for token in listed)
    for token in listed:
        likeliest = [(other["token"], other["logprob"]) for other in token["top_logprobs"]]
        assert top - 1 <= len(likeliest) <= top
        assert likeliest[:1] == ([(token["token"], token["logprob"])] if top else [])
        assert likeliest == sorted(likeliest, key=lambda pair: -pair[1])
        assert sum(math.exp(logprob) for _, logprob in likeliest) < 1


@pytest.mark.parametrize("tools", [{}, {"tools": [TOOL]}])
def test_a_stream_has_the_same_probabilities(lab: Running, tools: dict[str, Any]):
    """Each token's event has that token's, and no other event has any."""
    asked = {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2, **tools}
    (complete,) = answer(lab, "/v1/chat/completions", **asked)

    opening, *tokens, end = answer(lab, "/v1/chat/completions", **asked, stream=True)

    assert (opening["logprobs"], end["logprobs"]) == (None, None)
    assert [token["logprobs"]["content"] for token in tokens] == [
        [listed] for listed in complete["logprobs"]["content"]
    ]


def test_a_text_has_its_probabilities_in_lists(lab: Running):
    """Tokens, probabilities, alternatives and offsets, whole and streamed alike."""
    asked = {"prompt": "x", "logprobs": 3}
    (complete,) = answer(lab, "/v1/completions", **asked)

    tokens = answer(lab, "/v1/completions", **asked, stream=True)

    listed = complete["logprobs"]
    assert "".join(listed["tokens"]) == complete["text"]
    offsets = listed["text_offset"]
    assert [complete["text"][n:] for n in offsets] == [
        "".join(listed["tokens"][n:]) for n in range(5)
    ]
    assert all(2 <= len(top) <= 3 for top in listed["top_logprobs"])
    for name, values in listed.items():
        assert [token["logprobs"][name] for token in tokens] == [[value] for value in values]


@pytest.mark.parametrize("prompt", ["once upon a time", [7, 8, 9]])
def test_an_echo_has_the_prompts_tokens_too(lab: Running, prompt: object):
    """As those who score texts ask for it: only the very first token has no probability."""
    asked = {"prompt": prompt, "logprobs": 2}
    (plain,) = answer(lab, "/v1/completions", **asked)
    (whole,) = answer(lab, "/v1/completions", **asked, echo=True)

    opening, *tokens = answer(lab, "/v1/completions", **asked, echo=True, stream=True)

    listed = whole["logprobs"]
    text = "once upon a time" if isinstance(prompt, str) else "#7#8#9"
    echoed = len(listed["tokens"]) - 5
    assert whole["text"] == text + plain["text"] == "".join(listed["tokens"])
    assert [value is None for value in listed["token_logprobs"]] == [True] + [False] * (echoed + 4)
    assert listed["token_logprobs"][echoed:] == plain["logprobs"]["token_logprobs"]
    assert opening["text"] == text
    for name, values in listed.items():
        assert opening["logprobs"][name] == values[:echoed]
        assert [token["logprobs"][name] for token in tokens] == [[v] for v in values[echoed:]]


def test_an_echo_without_probabilities_is_the_prompt_and_the_answer(lab: Running):
    """Of an empty prompt there is nothing to repeat."""
    (plain,) = answer(lab, "/v1/completions", prompt="a b", echo=False)
    (echo,) = answer(lab, "/v1/completions", prompt="a b", echo=True)
    (empty,) = answer(lab, "/v1/completions", prompt="", echo=True)

    assert echo["text"] == "a b" + plain["text"]
    assert empty["text"] == answer(lab, "/v1/completions", prompt="")[0]["text"]


def test_no_probabilities_unless_asked_for(lab: Running):
    """null, as OpenAI has it."""
    assert answer(lab, "/v1/chat/completions", messages=MESSAGES)[0]["logprobs"] is None
    assert answer(lab, "/v1/completions", prompt="x")[0]["logprobs"] is None


def test_a_token_is_never_its_own_alternative():
    """No token is listed twice."""
    for key in range(300):
        content: Any = Logprobs(key, 20, chat=True).of((" the",))["content"]
        texts = [other["token"] for other in content[0]["top_logprobs"]]
        assert len(set(texts)) == len(texts)
