"""The traces that people publish become plans; what is wrong in one is named by its line."""

import bz2
import gzip
import lzma
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.traffic import scenario, scenario_choice, trace_file, workload

TRACES = Path(__file__).parents[1] / "data/traces"


def prompts(name: str) -> list[str]:
    """The prompt texts of a recorded trace's plan."""
    plan = workload.plan(scenario_choice.requested("", trace=str(TRACES / name)))
    return [next(user.requests).messages[0]["content"] for user in plan.users]


def written(folder: Path, name: str, text: str) -> str:
    """The path of a trace file with that text."""
    file = folder / name
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("name", "kind", "times", "tokens"),
    [
        ("mooncake.jsonl", "mooncake", [0, 0.5, 0.9, 1.5], [1100, 1300, 300, 1100]),
        ("burstgpt.csv", "burstgpt", [0, 41, 42], [472, 417, 1360]),
        ("azure.csv", "azure", [0, 4.314579, 4.541877], [374, 396, 879]),
    ],
)
def test_each_format_is_known_by_its_first_line(name, kind, times, tokens):
    """Times count from the first request that has an answer."""
    trace = trace_file.read(str(TRACES / name))

    assert trace.kind == kind
    assert [row.at for row in trace.rows] == pytest.approx(times)
    assert [row.input_tokens for row in trace.rows] == tokens


def test_a_row_without_an_answer_is_skipped_and_counted():
    """BurstGPT logs a failed request with 0 response tokens."""
    assert trace_file.read(str(TRACES / "burstgpt.csv")).skipped == 1


def test_prompts_with_the_same_hash_ids_begin_with_the_same_text():
    """Blocks 0 and 1 are 1,024 words of four bytes; the third block differs."""
    first, second, other, again = prompts("mooncake.jsonl")

    assert first[: 1024 * 4] == second[: 1024 * 4]
    assert first != second
    assert first == again
    assert other[:20] != first[:20]
    assert [len(text.split()) for text in (first, second, other)] == [1100, 1300, 300]


def test_a_trace_without_hash_ids_shares_nothing():
    """Every prompt is its own."""
    texts = prompts("azure.csv")

    assert len({text[:40] for text in texts}) == 3
    assert [len(text.split()) for text in texts] == [374, 396, 879]


def test_speed_and_limit_shorten_a_trace():
    """Twice as fast, the first two."""
    trace = trace_file.read(str(TRACES / "mooncake.jsonl"), speed=2, limit=2)

    assert [row.at for row in trace.rows] == pytest.approx([0, 0.25])
    assert workload.plan(scenario.traced(trace)).total == 2


def test_a_trace_goes_to_a_scenarios_fleet():
    """Its targets and backends stay; its arrivals and lengths give way to the trace's."""
    asked = scenario_choice.requested("mixed_fleet", trace=str(TRACES / "azure.csv"))

    assert (asked.name, asked.backends) == ("azure", scenario_choice.load("mixed_fleet").backends)
    assert [next(user.requests).max_tokens for user in workload.plan(asked).users] == [44, 109, 55]
    assert scenario.described(asked)["trace"]["requests"] == 3


def test_neither_a_scenario_nor_a_trace_is_an_error():
    """It says how to find one."""
    with pytest.raises(UsageError, match="no scenario and no trace"):
        scenario_choice.requested("")


def test_a_duration_with_a_trace_is_an_error():
    """It would change nothing: the trace has its own times."""
    with pytest.raises(UsageError, match="--duration needs a scenario without a trace"):
        scenario_choice.requested("", duration=5.0, trace=str(TRACES / "azure.csv"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"timestamp": 1}\n', r"no 'input_length' in .*a\.jsonl:1"),
        (
            "a.jsonl",
            '{"timestamp": 0, "input_length": 1, "output_length": 1}\n{"timestamp"',
            r"^error: not JSON \(Expecting ':' delimiter at column 13\) in .*a\.jsonl:2",
        ),
        (
            "a.jsonl",
            '{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1]}',
            "1 hash_ids for 600 tokens, expected 2",
        ),
        (
            "b.csv",
            "Timestamp,Request tokens,Response tokens\n1,2,3\n1,two,3\n",
            r'Request tokens "two" .* in .*b\.csv:3',
        ),
        ("c.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnow,1,1\n", 'TIMESTAMP "now"'),
        ("d.csv", "time,tokens\n1,2\n", "not a known trace format"),
        ("e.csv", "Timestamp,Request tokens,Response tokens\n1,2,0\n", "no request in trace"),
        ("e.csv", "Timestamp,Request tokens,Response tokens\n1,2\n", r"no 'Response tokens' .*:2"),
        ("e.csv", f"TIMESTAMP,ContextTokens,GeneratedTokens\n\n{'x' * 200_000}\n", "limit .*:3"),
        ("g.jsonl", '{"timestamp": null, "input_length": 1}', r"no 'timestamp' in .*:1"),
        ("g.jsonl", '{"a":' * 100_000, r"recursion .*g\.jsonl:1"),
        ("f.csv", "Timestamp,Request tokens,Response tokens\n-1,2,1\n", "not a number from 0"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, name, text, message):
    """The user can fix it."""
    with pytest.raises(UsageError, match=message):
        trace_file.read(written(tmp_path, name, text))


@pytest.mark.parametrize("name", ["mooncake.jsonl", "burstgpt.csv", "azure.csv"])
def test_blank_lines_and_blanks_around_column_names_do_not_count(tmp_path, name):
    """Before the first row, between rows, after a comma."""
    text = (TRACES / name).read_text()
    first, rest = text.split("\n", 1)
    head = first if name.endswith("jsonl") else first.replace(",", " , ")
    file = written(tmp_path, name, f"\n \n{head}\n\n{rest}\n\n")

    assert trace_file.read(file).rows == trace_file.read(str(TRACES / name)).rows


def test_a_trace_may_come_from_a_pipe(tmp_path):
    """As from `--trace <(zcat trace.csv.gz)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        pool.submit(pipe.write_bytes, (TRACES / "azure.csv").read_bytes())

        assert len(trace_file.read(str(pipe)).rows) == 3


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_trace_may_be_compressed(tmp_path, pack):
    """As the publishers distribute it; the first bytes decide."""
    file = tmp_path / "azure.csv"
    packed = pack((TRACES / "azure.csv").read_bytes())
    file.write_bytes(packed)

    assert trace_file.read(str(file)).rows == trace_file.read(str(TRACES / "azure.csv")).rows
    file.write_bytes(packed[:-20])
    with pytest.raises(UsageError, match=r"cannot read trace .*: Compressed file ended before"):
        trace_file.read(str(file))


def test_a_time_without_a_zone_is_utc(tmp_path, monkeypatch):
    """Where the clocks go forward in between, as anywhere else."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    rows = "2023-03-26 00:30:00,10,5\n2023-03-26 06:30:00+02:00,10,5\n"
    trace = trace_file.read(written(tmp_path, "a.csv", head + rows))
    monkeypatch.undo()
    time.tzset()

    assert trace.seconds == 4 * 3600


def test_a_file_that_is_not_there_is_an_error():
    """Not a traceback."""
    with pytest.raises(UsageError, match=r'cannot read trace "nowhere.csv".*\ntry: '):
        trace_file.read("nowhere.csv")
