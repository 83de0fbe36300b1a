"""Tokens and made-up answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.backends.llm.openai import text
from nginx_llm_lab.backends.llm.profiles import PROFILES


@given(st.text())
def test_tokens_joined_are_the_text_again(words: str):
    """Nothing is lost or changed, whatever the script."""
    assert "".join(text.tokens(words)) == words


@pytest.mark.parametrize(
    ("words", "count"),
    [("", 0), ("one two three", 3), ("incomprehensible", 2), ("日本", 2), ("a  \n", 2)],
)
def test_a_token_is_a_word_or_eight_characters_of_it(words: str, count: int):
    """Other scripts have a token a character."""
    assert len(text.tokens(words)) == count


@given(st.integers(0, 2**64 - 1), st.integers(1, 300))
def test_an_answer_has_the_same_tokens_when_sent_back(key: int, length: int):
    """In the next turn it has the same tokens, so its blocks are found in the cache."""
    answer = text.words(key, length)

    assert tuple(text.tokens("".join(answer))) == answer


def test_blocks_are_named_by_all_the_text_before_them():
    """An early difference changes every later name; a late one only the last."""
    parts = [f" {number}" for number in range(40)]

    names = text.blocks(parts)

    assert len(names) == 2
    assert text.blocks([*parts[:31], " x"])[0] == names[0]
    assert text.blocks([*parts[:31], " x"])[1] != names[1]
    assert set(text.blocks([" x", *parts[1:]])).isdisjoint(names)


def test_natural_lengths_have_the_profiles_median():
    """Half of them below it, some far above."""
    lengths = sorted(text.natural_length(key, PROFILES["instant"]) for key in range(2001))

    assert 115 <= lengths[1000] <= 141
    assert lengths[-1] > 5 * 128


@pytest.mark.parametrize(
    ("stops", "kept"),
    [
        (["two"], ["one", " "]),
        (["e tw"], ["on", ""]),
        (["nowhere"], ["one", " two", " three"]),
        (["three", "two"], ["one", " "]),
        ([""], ["one", " two", " three"]),
    ],
)
def test_an_answer_ends_before_its_stop_text(stops: list[str], kept: list[str]):
    """The token that completes it is generated, what it adds is not shown."""
    assert text.cut(("one", " two", " three"), stops) == tuple(kept)
