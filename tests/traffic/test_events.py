"""An event stream is cut into events, however its bytes arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.traffic.events import LONGEST_LINE, EventStream, text_of

TEXT = b": a comment\n\ndata: one\r\n\r\ndata:two\n\ndata: [DONE]\n\ndata: late\n\n"


@given(st.lists(st.integers(1, 9), max_size=20))
def test_events_are_the_same_in_any_pieces(sizes: list[int]) -> None:
    """Comments and blank lines are nothing; nothing counts behind [DONE]."""
    events: list[bytes] = []
    stream, remaining = EventStream(), TEXT

    for size in sizes:
        events += stream.feed(remaining[:size])
        remaining = remaining[size:]
    events += stream.feed(remaining)

    assert events == [b"one", b"two"]
    assert stream.done


def test_a_line_without_end_is_refused() -> None:
    """It must not fill the memory."""
    with pytest.raises(ValueError, match="a line of more than"):
        list(EventStream().feed(b"x" * (LONGEST_LINE + 1)))


def test_the_text_of_a_chunk_is_found_in_every_api() -> None:
    """Chat, completions, reasoning; a chunk that brings none has none."""
    assert text_of({"choices": [{"delta": {"content": "a"}}]}) == "a"
    assert text_of({"choices": [{"text": "b"}]}) == "b"
    assert text_of({"choices": [{"delta": {"reasoning_content": "c"}}]}) == "c"
    assert text_of({"choices": [{"delta": {"role": "assistant"}}]}) == ""
    assert text_of({"choices": [], "usage": {}}) == ""
