"""Where the lab's files lie: in a checkout, in the checkout; installed, never in the package."""

from pathlib import Path

import pytest

from nginx_llm_lab import paths


@pytest.fixture(autouse=True)
def no_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's environment names no folder of run folders."""
    monkeypatch.delenv("LAB_RUNS", raising=False)


def test_a_checkout_keeps_everything_in_itself() -> None:
    """And its own compose.yaml is what runs."""
    assert (paths.ROOT / "compose.yaml").is_file()
    assert paths.state_folder() == paths.ROOT / ".lab"
    assert paths.runs_folder() == paths.ROOT / ".lab/runs"
    assert paths.SETUP == "make setup"


def test_an_installed_package_writes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State goes to the user's state folder, evidence to where the user works."""
    monkeypatch.setattr(paths, "INSTALLED", True)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    assert paths.state_folder() == tmp_path / "state/nginx-llm-lab"
    assert paths.runs_folder() == tmp_path / ".lab/runs"


def test_run_folders_can_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two labs side by side can each have their own."""
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "mine"))

    assert paths.runs_folder() == tmp_path / "mine"
