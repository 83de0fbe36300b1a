"""Run folders become sections whose numbers are those of the verdict and the figures."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from nginx_llm_lab.accounts.judging import judge
from nginx_llm_lab.accounts.outcome import Loaded
from nginx_llm_lab.accounts.scorecard import Run
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.report import page, sections

RUNS = Path(__file__).parents[1] / "data/runs"


def test_a_run_shows_its_verdict_and_the_split_beside_the_prediction():
    """60 requests by weights 3, 2, 1: nginx and the oracle agree on every server."""
    section = sections.section(RUNS / "round_robin")

    assert section.word == judge(RUNS / "round_robin").case()["word"]
    assert [(share.server, share.observed, share.expected) for share in section.split] == [
        ("backend-1", 30, 30),
        ("backend-2", 20, 20),
        ("backend-3", 10, 10),
    ]
    assert section.config.startswith("# round_robin")


def test_a_load_shows_its_figures_as_they_were_computed():
    """Every number of the table is one of the outcome's."""
    outcome = judge(RUNS / "load")
    assert isinstance(outcome, Loaded)

    rows = {row[0]: row for row in sections.section(RUNS / "load").tables[0].rows}

    overall = outcome.figures.overall
    assert rows["all"][1:6] == (40, 0, overall.tokens, overall.busy_s, overall.ttft_ms.p50)
    assert list(rows) == ["backend-1", "backend-2", "backend-3", "all"]


def test_a_load_says_whether_its_picks_were_decided():
    """PASS is the word on its requests; the picks of a short load may be UNSURE."""
    outcome = judge(RUNS / "load")
    section = sections.section(RUNS / "load")

    assert isinstance(outcome, Loaded)
    assert section.word == outcome.case()["word"]
    assert section.verdict.startswith(f"picks {outcome.verdict.word}: ")


def test_a_load_has_its_distributions_and_its_timeline():
    """One time to the first token for each stream, and the pause marked where it was."""
    section = sections.section(RUNS / "load")

    assert sum(map(len, section.ttft_ms.values())) == 40
    assert sum(map(len, section.itl_ms.values())) == 326 - 40
    assert [mark.text for mark in section.marks] == ["pause backend-2", "heal all"]
    assert 0.5 < section.marks[1].at - section.marks[0].at < 5
    assert max(count for _, count in section.lanes["backend-2"]) >= 2


def test_a_folder_of_run_folders_gives_all_of_them():
    """In the order of their names, which is that of their times."""
    made = sections.page("all", [RUNS])

    assert [section.title for section in made.sections] == [
        "mini by least_conn",
        "ab -n 60 -c 10 by round_robin",
    ]
    assert "<script" not in page.html(made)


def test_a_comparison_becomes_heat_maps(tmp_path):
    """The worst is darkest; a winner and a tie are named."""
    runs = [
        Run("heavy_tail", method, seed, {"ttft_p99_ms": value + seed, "goodput": 5.0})
        for method, value in (("round_robin", 300.0), ("least_conn", 100.0), ("random", 200.0))
        for seed in (1, 2, 3)
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(asdict(run)) + "\n" for run in runs))

    first, goodput = sections.page("compared", [tmp_path]).scorecards

    cells = {method: row[0] for method, row in first.rows}
    assert {method: cell.shade for method, cell in cells.items()} == {
        "least_conn": 0.0,
        "random": 0.5,
        "round_robin": 1.0,
    }
    assert cells["least_conn"].note == "best"
    assert {cell.note for _, row in goodput.rows for cell in row} == {"tie"}


def test_a_damaged_folder_is_named_and_the_others_are_reported(tmp_path):
    """In every form of the page. Where no folder can be read, it is an error."""
    good, damaged = tmp_path / "a", tmp_path / "b"
    shutil.copytree(RUNS / "round_robin", good)
    shutil.copytree(RUNS / "round_robin", damaged)
    (damaged / "run.json").write_text('{"sent": ')

    made = sections.page("some", [tmp_path])

    assert [section.folder for section in made.sections] == [str(good)]
    (fault,) = made.as_dict()["unreadable"]
    assert fault.startswith(f"{damaged}/run.json is not a valid run file")
    assert "Left out: " in page.html(made)
    assert f"- left out: {fault}" in page.markdown(made)
    with pytest.raises(UsageError, match=r"run\.json is not a valid run file"):
        sections.page("none", [damaged])


def test_a_folder_without_a_run_is_an_error(tmp_path):
    """It names the folder and what to give."""
    with pytest.raises(UsageError, match="no run folder at"):
        sections.page("none", [tmp_path])
