"""`lab runs`: list the run folders, remove old ones."""

import json
from pathlib import Path

import pytest

from nginx_llm_lab.cli import command, runs

RUN = {"method": "hash", "traffic": "ab", "sequential": True, "sent": 7, "addresses": {}}


def test_prune_leaves_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output lists the remaining folders."""
    for day in "123":
        (tmp_path / f"2026010{day}-hash").mkdir()
        (tmp_path / f"2026010{day}-hash/run.json").write_text(json.dumps(RUN))
    monkeypatch.setattr(runs, "runs_folder", lambda: tmp_path)

    command()(["runs", "--prune", "--keep", "1", "--json"], standalone_mode=False)

    listed = json.loads(capsys.readouterr().out)
    assert [Path(run["path"]).name for run in listed] == ["20260103-hash"]
    assert [path.name for path in tmp_path.iterdir()] == ["20260103-hash"]
