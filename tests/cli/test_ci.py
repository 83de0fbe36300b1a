"""Reports to CI after an error."""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from nginx_llm_lab import cli


def ended(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of `lab` with these words."""
    monkeypatch.setattr(sys, "argv", ["lab", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_junit_is_written_even_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run folder that is not there is an error case, and wrong usage."""
    file = tmp_path / "out.xml"

    code = ended(["judge", str(tmp_path / "nowhere"), "--junit", str(file)], monkeypatch)

    assert code == 2
    suite = ET.parse(file).getroot()
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    assert "nowhere" in (suite[0][0].text or "")
    assert capsys.readouterr().err.startswith("error: ")


def test_a_full_disk_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 3, as whatever the lab could not do; 1 would be a claim that does not hold."""

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device", "/runs/1/run.json")

    monkeypatch.setattr("nginx_llm_lab.accounts.judging.judge", full)

    assert ended(["judge", "x"], monkeypatch) == 3
    assert "/runs/1/run.json: No space left on device" in capsys.readouterr().err
