"""A short text for a regex."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.verify.traffic.sample import sample


@pytest.mark.parametrize(
    ("regex", "text"),
    [
        (r"^/v1/(chat|completions)", "/v1/chat"),
        (r"^/api/v\d+/[a-z]{3,5}/?$", "/api/v1/aaa"),
        (r"^/(?<version>v\d)/(\w+)/\2$", "/v1/a/a"),
        (r"^/(?<name>[a-z]+)-(?P=name)$", "/a-a"),
        (r"^/a(?=/b)/b", "/a/b"),
        (r"\b\d{4}-\d{2}\b", "1111-11"),
        (r"[[:alpha:]]+x", "ax"),
        (r"^[\w.-]+\.example\.com$", "a.example.com"),
        (r"(?:a|b)*c+", "c"),
        (r"^\x41\/b", "A/b"),
        (r"[]a]b", "ab"),
        (r"^(?!/private).*\.jpg$", ".jpg"),
    ],
)
def test_each_part_of_a_regex_has_its_shortest_text(regex: str, text: str) -> None:
    """Classes, groups, references, repetitions; what only looks ahead takes nothing."""
    assert sample(regex) == text


@pytest.mark.parametrize("regex", ["(", "a(?=b)c", r"(?<!x)\Ax^y"])
def test_where_no_text_was_found_there_is_none(regex: str) -> None:
    """A regex that is none, or that no text matches."""
    assert sample(regex) == ""


WORDS = st.text("abcXYZ019._-", min_size=1, max_size=4).map(re.escape)

PARTS = st.recursive(
    WORDS | st.sampled_from(["[a-c]", "[^/]", r"\d", r"\w+", ".", "x{2,3}", "(?:a|b)?"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda them: f"({'|'.join(them)})"),
        inner.map(lambda pattern: f"(?:{pattern})+"),
    ),
    max_leaves=6,
)


@given(PARTS)
def test_a_sample_matches_its_regex(text: str) -> None:
    """Whatever the regex is made of, the text that is made for it matches."""
    assert re.search(text, sample(text))
