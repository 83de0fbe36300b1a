"""The first simulation of an installation takes longer, and says why."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nginx_llm_lab.cli.compiling import announce_compiling
from nginx_llm_lab.simulate import fast


def test_compiling_is_announced_until_it_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By what numba has written into its folder."""
    stats = SimpleNamespace(cache_path=str(tmp_path))
    monkeypatch.setattr(fast, "kernel", SimpleNamespace(loop=SimpleNamespace(stats=stats)))
    (tmp_path / "kernel.push-1.py311.nbi").touch()

    announce_compiling()
    assert "compiling the simulator" in capsys.readouterr().err

    (tmp_path / "kernel.loop-2.py311.nbi").touch()
    announce_compiling()
    assert capsys.readouterr().err == ""
