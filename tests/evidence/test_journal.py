"""A backend's line becomes an entry; a line that is none is kept."""

import json

from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.evidence.journal import Entry, Journal, served
from nginx_llm_lab.evidence.journal import read as journal

LINE = (
    b'{"t":12.5,"start":10.0,"id":"a","backend":"backend-1","method":"POST",'
    b'"path":"/v1/chat/completions","status":200,"duration":2.5,"bytes":99,"fate":"ok",'
    b'"prompt_tokens":8,"cached_tokens":0,"completion_tokens":4,"tokens_sent":4,"queued":0.0,'
    b'"ttft":null,"stream":true}\n'
)


def test_times_at_the_backends_are_those_of_whole_lines() -> None:
    """A line without a start, or with an end before it, tells no times."""
    early, endless = Entry("b", "x", start=9.0, t=8.0), Entry("c", "x", start=1.0, t=1e308)

    times = served([Entry("a", "x", start=9.0, t=9.5), early, endless, Entry("d", "x", t=3.0)])

    assert times == {"a": (9.0, 9.5)}


def test_a_backends_line_becomes_an_entry() -> None:
    """As the backend writes it, and as `docker compose logs` shows it."""
    read = journal([LINE, b"backend-1-1  | " + LINE])

    assert read.entries[0] == read.entries[1]
    assert read.entries[0] == Entry(
        id="a",
        backend="backend-1",
        start=10.0,
        t=12.5,
        duration=2.5,
        status=200,
        fate="ok",
        method="POST",
        path="/v1/chat/completions",
        prompt_tokens=8,
        cached_tokens=0,
        completion_tokens=4,
        tokens_sent=4,
        queued=0.0,
        stream=True,
    )


def test_a_line_that_is_no_entry_is_kept_with_its_number() -> None:
    """Nothing is dropped in silence; an empty line is nothing."""
    other = [b"Started\n", b"\n", LINE[:50], b'{"id": 3, "backend": "b"}', b'{"id": "a"}', LINE]

    read = journal(other)

    assert [bad.number for bad in read.malformed] == [1, 3, 4, 5]
    assert len(read.entries) == 1


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.dictionaries(
                st.sampled_from(["id", "backend", "t", "status", "tokens_sent"]),
                st.one_of(st.text(max_size=3), st.integers(), st.floats(), st.none()),
            ).map(lambda fields: json.dumps(fields).encode()),
        )
    )
)
def test_every_line_is_an_entry_or_malformed_or_empty(lines: list[bytes]) -> None:
    """Whatever the lines hold."""
    read: Journal = journal(lines)

    empty = sum(not line.strip() for line in lines)
    assert len(read.entries) + len(read.malformed) + empty == len(lines)
