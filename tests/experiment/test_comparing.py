"""A comparison is planned, interrupted and resumed without Docker."""

import json
from dataclasses import asdict, replace

import pytest

from nginx_llm_lab.accounts import scorecard
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.experiment import comparing
from nginx_llm_lab.experiment.comparing import Plan

PLAN = Plan(("shared_prompts",), ("round_robin", "prompt_prefix"), 2, 5.0, simulated=True)


def test_an_interrupted_comparison_is_resumed(tmp_path, monkeypatch):
    """What was run is kept, the rest is run, a line that was cut off is run again."""
    monkeypatch.setattr(comparing, "fresh_folder", lambda name: tmp_path / name)
    complete = comparing.compare(comparing.begin(PLAN), None)
    file = tmp_path / "compare" / scorecard.RUNS
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], lines[2][:20]]))
    done = []

    again = comparing.compare(
        comparing.resumed(tmp_path / "compare"), None, lambda run, *_: done.append(run)
    )

    assert len(done) == 2
    assert sorted(again.runs, key=str) == sorted(complete.runs, key=str)
    assert scorecard.read_runs(tmp_path / "compare") == list(again.runs)


def test_a_comparison_that_is_resumed_again_writes_no_empty_line(tmp_path, monkeypatch):
    """Its last line is complete."""
    monkeypatch.setattr(comparing, "fresh_folder", lambda name: tmp_path / name)
    once = comparing.begin(replace(PLAN, methods=("round_robin",), repeats=1))

    for _ in range(2):
        comparing.compare(once, None)

    assert (tmp_path / "compare" / scorecard.RUNS).read_text().count("\n") == 1


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_duration_that_no_run_has_is_refused(seconds):
    """NaN ended in a traceback, infinity never ended."""
    with pytest.raises(UsageError, match=r"--duration .* is out of range"):
        comparing.begin(replace(PLAN, duration=seconds))


def test_every_method_has_the_same_seeds():
    """So that differences are of the methods, not of the requests."""
    cells = replace(PLAN, repeats=3).cells()

    assert sorted(cells) == sorted(
        (repeat, "shared_prompts", method)
        for repeat in range(3)
        for method in ("round_robin", "prompt_prefix")
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("least_conn", "hash", "least_conn")}, 'method "least_conn" is given twice'),
        ({"scenarios": ("chat.yaml", "a/chat.yaml")}, 'scenario "chat" is given twice'),
    ],
)
def test_what_is_given_twice_is_refused(tmp_path, monkeypatch, changes, message):
    """Runs of two files with one name would count as runs of one scenario."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for file in (tmp_path / "chat.yaml", tmp_path / "a/chat.yaml"):
        file.write_text("rate: 1\nduration: 5\n")

    with pytest.raises(UsageError, match=message):
        comparing.check(replace(PLAN, **changes))


def test_the_keys_that_move_are_counted():
    """A consistent hash moves some requests when the last server goes, turns have no keys."""
    moved = comparing.moved(PLAN)["shared_prompts"]

    assert moved["round_robin"] is None
    assert 0 < (moved["prompt_prefix"] or 0) < 0.7


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("repeats", "3", r"compare\.json is not a comparison: repeats: expected `int`"),
        ("methods", "hash", r"compare\.json is not a comparison: methods: expected `array`"),
        ("methods", ["rr"], 'no method "rr"'),
    ],
)
def test_a_damaged_plan_is_named_with_its_field(tmp_path, key, value, message):
    """A name in place of a list was taken for its letters."""
    (tmp_path / comparing.PLAN).write_text(json.dumps({**asdict(PLAN), key: value}))

    with pytest.raises(UsageError, match=message):
        comparing.resumed(tmp_path)


def test_a_folder_without_a_comparison_is_named(tmp_path):
    """The error says which file is missing."""
    with pytest.raises(UsageError, match=r"compare\.json"):
        comparing.resumed(tmp_path)


def test_a_plan_gets_the_longest_runs_that_fit_into_its_minutes():
    """One second more for each run would be too long."""
    plan = replace(PLAN, duration=0.0)

    fitted = comparing.fitted(plan, 1.5)

    assert comparing.estimate(fitted) <= 90
    assert comparing.estimate(replace(fitted, duration=fitted.duration + 1)) > 90


def test_too_few_minutes_are_an_error_with_the_needed_number():
    """Four runs take more than six seconds."""
    with pytest.raises(UsageError, match="too short for 4 runs"):
        comparing.fitted(PLAN, 0.1)


def test_the_estimate_knows_the_seed_of_every_repeat() -> None:
    """One long answer more makes a run of the next seed last longer."""
    once = comparing.Plan(("mixed_fleet",), ("round_robin",), 1, 4.0)

    first, both = comparing.estimate(once), comparing.estimate(replace(once, repeats=2))

    assert abs(both - 2 * first) > 0.1
