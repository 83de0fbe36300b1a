"""How much of a container's log is read."""

import pytest

from nginx_llm_lab.stack import engine
from nginx_llm_lab.stack.engine import Printed


@pytest.mark.parametrize(
    ("new", "read"),
    [
        (10, ["4000"]),
        (5_000, ["4000", "64000"]),
        (100_000, ["4000", "64000", "all"]),
    ],
)
def test_all_lines_since_a_moment_are_returned(monkeypatch, new, read):
    """The last lines are read; more of them until they reach back to the moment."""
    asked = []

    def logs(_container: str, _since: float, tail: str) -> Printed:
        asked.append(tail)
        return Printed(b"line\n" * min(new, new if tail == "all" else int(tail)), b"")

    monkeypatch.setattr(engine, "_logs", logs)

    assert engine.printed_since("c", 1.0).stdout.count(b"\n") == new
    assert asked == read


def test_a_line_that_the_engine_kept_in_pieces_hides_no_other(monkeypatch):
    """4,000 pieces may be 1,000 lines: lines before them may be missing."""
    kept = {"4000": 1_000, "64000": 1_500}
    monkeypatch.setattr(
        engine, "_logs", lambda _container, _since, tail: Printed(b"line\n" * kept[tail], b"")
    )

    assert engine.printed_since("c", 1.0).stdout.count(b"\n") == 1_500
