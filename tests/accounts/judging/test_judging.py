"""A folder that cannot be judged is refused with the next step."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from nginx_llm_lab.accounts.judging import judge
from nginx_llm_lab.accounts.scorecard import RUNS, Run
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence import folder
from nginx_llm_lab.evidence.folder import Evidence
from nginx_llm_lab.evidence.timeline import Window
from tests.accounts.judging.run_folders import (
    BEGAN,
    evidence,
    outcome,
    timeline,
)


@pytest.mark.parametrize(
    ("kept", "wrong"),
    [
        (evidence(kind="load", timeline=None), "timeline.json is missing"),
        (
            evidence(kind="load", scenario={"targets": 5}),
            "scenario.json .* targets: expected `object`",
        ),
        (evidence(kind="soak", notes={"seed": "x"}), "run.json .* seed: expected `int`"),
        (
            evidence(kind="load", timeline=timeline(windows=[Window(BEGAN, claim="../../x")])),
            'timeline.json names the claim "../../x"',
        ),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_file_and_field(
    tmp_path: Path, kept: Evidence, wrong: str
) -> None:
    """The error names file and field; there is no traceback."""
    with pytest.raises(UsageError, match=wrong):
        outcome(tmp_path, kept)


def test_a_folder_of_several_runs_names_those_that_can_be_judged(tmp_path: Path) -> None:
    """A comparison lies beside its live runs; simulated runs have no logs."""
    comparison, runs = tmp_path / "compare", tmp_path / "runs"
    comparison.mkdir()
    lines = [Run("chat", "least_conn", n, {}, folder=f"run-{n}") for n in range(7)]
    (comparison / RUNS).write_text("".join(f"{json.dumps(asdict(run))}\n" for run in lines))
    folder.write(evidence(), runs / "20261127-live")
    folder.write(evidence(kind="simulated"), runs / "20261127-other")

    with pytest.raises(
        UsageError, match=r"(?s)comparison of 7 .* run-0, .* run-4, or one of 2 more"
    ):
        judge(comparison)
    with pytest.raises(UsageError, match=r"it contains 2\ntry:   lab judge \S*/20261127-live$"):
        judge(runs)


def test_a_simulated_comparison_has_nothing_to_judge(tmp_path: Path) -> None:
    """The error names the command that shows its figures."""
    (tmp_path / RUNS).write_text(json.dumps(asdict(Run("chat", "least_conn", 1, {}))))

    with pytest.raises(UsageError, match=r"comparison of 1 .*\ntry:   lab report .* simulated"):
        judge(tmp_path)
