"""Only one command at a time uses a lab."""

from pathlib import Path

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.stack import compose, lock
from nginx_llm_lab.stack.compose import Lab


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of the test's own."""
    monkeypatch.setattr(compose, "state_folder", lambda: tmp_path)


def test_a_second_command_is_told_who_uses_the_lab() -> None:
    """Its command line, its process, and the next step."""
    with lock.held(Lab("one"), ["lab", "run", "hash"]), pytest.raises(LabError) as refused:
        lock.held(Lab("one"), ["lab", "up"]).__enter__()

    assert refused.value.message.startswith('lab "one" is in use by "lab run hash" (process ')
    assert "kill" in refused.value.hint


def test_the_lock_is_released_and_belongs_to_one_lab() -> None:
    """Two labs can be in use at once; after a command ends the next can start."""
    with lock.held(Lab("one"), ["lab", "up"]), lock.held(Lab("two"), ["lab", "up"]):
        pass
    with lock.held(Lab("one"), ["lab", "down"]):
        assert '"command": "lab down"' in (Lab("one").state / "lock").read_text()
