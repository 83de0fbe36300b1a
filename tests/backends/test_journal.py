"""One line per request."""

import json
from typing import Any

from nginx_llm_lab.backends.llm.journal import Journal, LlmFigures, Record, line


def test_a_line_is_one_flat_json_object():
    """Names and order as documented; the path's odd characters are escaped."""
    record = Record("id-1", "GET", '/"a\\b"?x', 0.0, 200, 24, "ok")

    assert json.loads(line(record, "backend-1", 10.25, 0.25)) == {
        "t": 10.25,
        "start": 10.0,
        "id": "id-1",
        "backend": "backend-1",
        "method": "GET",
        "path": '/"a\\b"?x',
        "status": 200,
        "duration": 0.25,
        "bytes": 24,
        "fate": "ok",
    }


def test_an_llm_call_adds_its_figures():
    """Seconds that are not known are null."""
    figures = LlmFigures(True, 256, 240, 10, 9, queued=0.5)
    record = Record("", "POST", "/", 0.0, llm=figures)

    added = dict(list(json.loads(line(record, "b", 2.0, 1.0)).items())[10:])

    assert added == {
        "prompt_tokens": 256,
        "cached_tokens": 240,
        "completion_tokens": 10,
        "tokens_sent": 9,
        "queued": 0.5,
        "ttft": None,
        "late": 0.0,
        "stream": True,
    }


def test_lines_of_one_loop_iteration_are_written_together():
    """The first asks for the write, the others join it."""
    written: list[str] = []
    turn: list[Any] = []
    journal = Journal("b", written.append, turn.append)

    for _ in range(3):
        journal.add(Record("", "GET", "/", 0.0))
    for end in turn:
        end()
    journal.flush()

    assert [text.count("\n") for text in written] == [3]
