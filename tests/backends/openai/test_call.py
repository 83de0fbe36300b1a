"""What OpenAI accepts, and what it says to the rest."""

from typing import Any

import pytest

from nginx_llm_lab.backends.llm.openai.api_error import ApiError
from nginx_llm_lab.backends.llm.openai.call import parse_chat, parse_text

HELLO = [{"role": "user", "content": "hello there"}]


def chat(**fields: Any) -> dict[str, Any]:
    """A call's body."""
    return {"model": "m", "messages": HELLO, **fields}


def test_a_chat_is_a_mark_for_each_turn_and_its_words():
    """The answer's own mark closes the prompt."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "assistant"}, *HELLO]

    call = parse_chat(chat(messages=messages), "m", 100)

    expected = "<|system|>be brief<|assistant|><|user|>hello there<|assistant|>"
    assert "".join(call.prompts[0]) == expected
    assert len(call.prompts[0]) == 8


def test_parts_of_text_are_one_text():
    """As the vision models' clients send them."""
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]

    call = parse_chat(chat(messages=[{"role": "user", "content": parts}]), "m", 100)

    assert call == parse_chat(chat(), "m", 100)


def test_a_refusal_that_an_assistant_gave_is_text_too():
    """As OpenAI's answers have it, which clients send back."""
    refused = [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no, sorry"}]}]

    call = parse_chat(chat(messages=[*refused, *HELLO]), "m", 100)

    assert call.prompts[0][:3] == ("<|assistant|>", "no,", " sorry")


def test_null_counts_as_absent_and_unknown_fields_are_accepted():
    """SDKs send the one, vLLM's users the other."""
    nothing = dict.fromkeys(["n", "stop", "max_tokens", "stream", "stream_options", "seed", "user"])

    call = parse_chat(chat(**nothing, top_k=5, repetition_penalty=1.1), "m", 100)

    assert call == parse_chat(chat(), "m", 100)


def test_a_whole_number_may_be_written_with_a_point():
    """JSON has one kind of number."""
    assert parse_chat(chat(max_tokens=5.0), "m", 100).max_tokens == 5


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("a b", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2), ("", 1)],
)
def test_a_prompt_is_text_or_tokens_one_or_many(prompt: object, count: int):
    """All of OpenAI's forms."""
    call = parse_text({"model": "m", "prompt": prompt}, "m", 100)

    assert len(call.prompts) == count
    assert all(call.prompts)


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ([], 400, None, None),
        ({"messages": HELLO}, 400, "model", None),
        ({"model": 3, "messages": HELLO}, 400, "model", "invalid_type"),
        ({"model": "x", "messages": HELLO}, 404, "model", "model_not_found"),
        ({"model": "m"}, 400, "messages", "missing_required_parameter"),
        (chat(messages="hi"), 400, "messages", "invalid_type"),
        (chat(messages=[]), 400, "messages", "empty_array"),
        (chat(messages=["hi"]), 400, "messages[0]", "invalid_type"),
        (chat(messages=[{"content": "x"}]), 400, "messages[0].role", "missing_required_parameter"),
        (
            chat(messages=[{"role": "cat", "content": "x"}]),
            400,
            "messages[0].role",
            "invalid_value",
        ),
        (chat(messages=[{"role": "user"}]), 400, "messages[0].content", None),
        (chat(messages=[{"role": "user", "content": 1}]), 400, "messages[0].content", None),
        (
            chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
            400,
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (chat(temperature="hot"), 400, "temperature", "invalid_type"),
        (chat(temperature=True), 400, "temperature", "invalid_type"),
        (chat(temperature=2.1), 400, "temperature", "decimal_above_max_value"),
        (chat(top_p=-0.1), 400, "top_p", "decimal_below_min_value"),
        (chat(n=0), 400, "n", "integer_below_min_value"),
        (chat(n=1.5), 400, "n", "invalid_type"),
        (chat(max_tokens=0), 400, "max_tokens", "integer_below_min_value"),
        (chat(max_tokens=101), 400, "max_tokens", "invalid_value"),
        (chat(max_completion_tokens="5"), 400, "max_completion_tokens", "invalid_type"),
        (chat(stream="yes"), 400, "stream", "invalid_type"),
        (chat(stream_options={}), 400, "stream_options", None),
        (
            chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": 1}),
            400,
            "stream_options.continuous_usage_stats",
            "invalid_type",
        ),
        (chat(stop=[1]), 400, "stop[0]", "invalid_type"),
        (chat(stop=["a"] * 5), 400, "stop", "array_above_max_length"),
        (chat(tools={}), 400, "tools", "invalid_type"),
        (chat(modalities=["text", "audio"]), 400, "modalities", "unsupported_value"),
    ],
)
def test_a_wrong_call_gets_the_error_and_its_field(
    body: object, status: int, param: str | None, code: str | None
):
    """OpenAI's status, param and code."""
    with pytest.raises(ApiError) as caught:
        parse_chat(body, "m", 100)

    assert (caught.value.status, caught.value.param) == (status, param)
    assert code is None or caught.value.code == code


@pytest.mark.parametrize("prompt", [["a"] * 129, [[1]] * 129, [1, "a"], [-1], [[]], {}])
def test_a_prompt_of_no_known_form_is_refused(prompt: object):
    """So are more than 128 at once."""
    with pytest.raises(ApiError) as caught:
        parse_text({"model": "m", "prompt": prompt}, "m", 100)

    assert str(caught.value.param).startswith("prompt")


def test_many_prompts_are_taken_with_few_answers_each():
    """LangChain sends 20 at once; all answers are planned together, so they are limited."""
    body = {"model": "m", "prompt": ["a"] * 20}

    assert len(parse_text({**body, "n": 8}, "m", 100).prompts) == 20
    with pytest.raises(ApiError) as caught:
        parse_text({**body, "n": 9}, "m", 100)
    assert caught.value.param == "n"


def test_a_suffix_is_refused():
    """As vLLM does: an answer that ignores it would not fit before it."""
    with pytest.raises(ApiError) as caught:
        parse_text({"model": "m", "prompt": "a", "suffix": "z"}, "m", 100)

    assert (caught.value.param, caught.value.code) == ("suffix", "unsupported_parameter")
