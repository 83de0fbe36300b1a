"""Where the lab's files lie: in a checkout, in the checkout; installed, never in the package."""

from pathlib import Path

import pytest

from nginx_llm_lab import paths


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
