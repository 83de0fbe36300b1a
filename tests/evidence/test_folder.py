"""A run's folder is written whole and read back."""

import json
from dataclasses import replace

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence import folder
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.folder import Evidence
from nginx_llm_lab.evidence.journal import Entry
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.evidence.timeline import Done, Event, Tenure, Timeline, Window

RUN = Evidence(
    "hash", "100 requests", True, 100, {"10.0.0.1:8000": "a:8000"}, "upstream", "conf", b"{}\n", b""
)


def test_what_was_written_is_read(tmp_path):
    """Bytes and words alike."""
    folder.write(RUN, tmp_path / "run")

    assert folder.read(tmp_path / "run") == RUN


def test_a_key_that_is_not_utf_8_is_read_back(tmp_path):
    """A config may hash any bytes."""
    run = replace(RUN, claim="hash \udce9$uri;", claims={"upstream-2.conf": "# \udce9"})
    folder.write(run, tmp_path / "run")

    assert folder.read(tmp_path / "run") == run
    assert b"\xe9" in (tmp_path / "run" / "upstream.conf").read_bytes()


def test_an_interrupted_run_is_marked(tmp_path):
    """In its folder and in the list of runs; folders of earlier versions have no such mark."""
    folder.write(replace(RUN, interrupted=True), tmp_path / "stopped")
    folder.write(RUN, tmp_path / "whole")
    file = tmp_path / "whole" / "run.json"
    fields = json.loads(file.read_text())
    del fields["interrupted"]
    file.write_text(json.dumps(fields))

    assert [run.interrupted for run in folder.list_runs(tmp_path)] == [True, False]
    assert folder.read(tmp_path / "stopped").interrupted
    assert folder.read(tmp_path / "whole") == RUN


@pytest.mark.parametrize("file", ["run.json", "access.jsonl", "upstream.conf"])
def test_a_missing_file_is_named(tmp_path, file):
    """Which one."""
    folder.write(RUN, tmp_path / "run")
    (tmp_path / "run" / file).unlink()

    with pytest.raises(UsageError, match=file):
        folder.read(tmp_path / "run")


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("sent", None, "sent: expected `int`, got `null`"),
        ("sent", "many", "sent: expected `int`, got `str`"),
        ("sent", -1, "sent must not be negative"),
        ("addresses", None, "addresses: expected `object`, got `null`"),
        ("addresses", [], "addresses: expected `object`, got `array`"),
        ("addresses", {"a": 1}, "addresses[...]: expected `str`, got `int`"),
        ("method", 7, "method: expected `str`, got `int`"),
        ("sequential", "yes", "sequential: expected `bool`, got `str`"),
        ("kind", "joke", "kind: invalid enum value 'joke'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, field, value, wrong):
    """File, field, and what stands there."""
    folder.write(RUN, tmp_path / "run")
    file = tmp_path / "run/run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))

    with pytest.raises(UsageError) as refusal:
        folder.read(tmp_path / "run")
    assert "run.json" in refusal.value.message
    assert wrong in refusal.value.message


def test_records_and_timeline_are_read_back(tmp_path):
    """What a load leaves beside what a run does."""
    events = [Done(Event(1.0, "use", method="hash", weights=(2, 1)), 1.0, 1.2)]
    homes = [Tenure("10.0.0.1:8000", "backend-1", 100.0)]
    windows = [Window(100.0, 101.0), Window(101.2, claim="upstream-2.conf", after="use hash")]
    load = replace(
        RUN,
        kind="load",
        claims={"upstream-2.conf": "upstream"},
        records=(Record(0, "id", 1.0, token_times=(1.5, 2.0)),),
        timeline=Timeline(100.0, ("backend-1",), homes, events, windows),
        scenario={"name": "chat"},
        trace=b"picks",
    )

    folder.write(load, tmp_path / "run")

    assert folder.read(tmp_path / "run") == load


def test_a_broken_record_is_named_with_its_line(tmp_path):
    """The second of two."""
    folder.write(replace(RUN, records=(Record(0, "id", 1.0),)), tmp_path / "run")
    with (tmp_path / "run/client.jsonl").open("a") as lines:
        lines.write('{"number": 1, "id": "x", "due": "soon"}\n')

    with pytest.raises(UsageError, match=r"client\.jsonl:2 .* due: expected `float`"):
        folder.read(tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"method": 1, "more": 2}'])
def test_an_invalid_run_folder_is_an_error(tmp_path, text):
    """Not a run's folder."""
    folder.write(RUN, tmp_path / "run")
    (tmp_path / "run/run.json").write_text(text)

    with pytest.raises(UsageError, match=r"run\.json"):
        folder.read(tmp_path / "run")


def test_the_clock_lag_is_the_longest_delay_of_a_request_to_its_backend():
    """All of them within it; retried requests do not count."""
    hits = [Hit(("a",), msec=10.0, request_time=0.5, request_id=str(n)) for n in range(100)]
    hits.append(Hit(("a", "b"), msec=1.0, request_time=0.0, request_id="retried"))
    entries = [Entry(str(n), "a", start=9.5 + n / 1e4) for n in range(100)]
    entries.append(Entry("retried", "a", start=99.0))

    assert folder.clock_lag(hits, entries) == pytest.approx(9.9)


def test_without_a_journal_the_clock_lag_is_zero():
    """The verdict's own least doubt remains."""
    assert folder.clock_lag([], []) == 0.0


def test_run_folders_are_listed_the_oldest_first(tmp_path):
    """One that cannot be read is listed, too; whatever else lies there is not."""
    folder.write(RUN, tmp_path / "20260102-hash")
    folder.write(replace(RUN, kind="soak"), tmp_path / "20260101-soak")
    folder.write(RUN, tmp_path / "20260103-broken")
    (tmp_path / "20260103-broken/run.json").write_text("{}")
    (tmp_path / "notes").mkdir()

    runs = folder.list_runs(tmp_path)

    assert [(run.path.name, run.kind, run.sent) for run in runs] == [
        ("20260101-soak", "soak", 100),
        ("20260102-hash", "run", 100),
        ("20260103-broken", "?", 0),
    ]
    assert all(run.size > 0 for run in runs)
    assert folder.list_runs(tmp_path / "nowhere") == []
