"""A run's folder is written whole and read back."""

import json

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence import folder
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.folder import Evidence

RUN = Evidence(
    "hash", "100 requests", True, 100, {"10.0.0.1:8000": "a:8000"}, "upstream", "conf", b"{}\n", b""
)


def test_what_was_written_is_read(tmp_path):
    """Bytes and words alike."""
    folder.write(RUN, tmp_path / "run")

    assert folder.read(tmp_path / "run") == RUN


@pytest.mark.parametrize("file", ["run.json", "access.jsonl", "upstream.conf"])
def test_a_missing_file_is_named(tmp_path, file):
    """Which one."""
    folder.write(RUN, tmp_path / "run")
    (tmp_path / "run" / file).unlink()

    with pytest.raises(UsageError, match=file):
        folder.read(tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"method": 1, "more": 2}'])
def test_a_broken_run_is_told_so(tmp_path, text):
    """Not a run's folder."""
    folder.write(RUN, tmp_path / "run")
    (tmp_path / "run/run.json").write_text(text)

    with pytest.raises(UsageError, match=r"run\.json"):
        folder.read(tmp_path / "run")


def test_the_doubt_of_the_clock_is_how_late_requests_reached_their_backends():
    """99 of 100 within it; retried requests do not count."""
    hits = [Hit(("a",), msec=10.0, request_time=0.5, request_id=str(n)) for n in range(100)]
    hits.append(Hit(("a", "b"), msec=1.0, request_time=0.0, request_id="retried"))
    lines = [{"id": str(n), "start": 9.5 + n / 1e4} for n in range(100)]
    lines.append({"id": "retried", "start": 99.0})
    journal = "\n".join(json.dumps(line) for line in lines).encode()

    assert folder.clock_doubt(hits, journal) == pytest.approx(9.9)


def test_without_a_journal_nothing_is_doubted():
    """The verdict's own least doubt remains."""
    assert folder.clock_doubt([], b"") == 0.0
