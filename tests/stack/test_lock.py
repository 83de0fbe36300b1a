"""One command at a time works on a lab."""

from pathlib import Path

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.stack import compose, lock
from nginx_llm_lab.stack.compose import Lab


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of the test's own."""
    monkeypatch.setattr(compose, "state_folder", lambda: tmp_path)


def test_a_second_command_is_told_who_works_there() -> None:
    """Its words, its process, and how to go on."""
    with lock.held(Lab("one"), ["lab", "run", "hash"]), pytest.raises(LabError) as refused:
        lock.held(Lab("one"), ["lab", "up"]).__enter__()

    assert refused.value.message.startswith('"lab run hash" (process ')
    assert refused.value.message.endswith(' works on lab "one"')
    assert "kill" in refused.value.hint


def test_the_lock_is_given_back_and_is_of_one_lab() -> None:
    """Two labs are worked on at once; after one command comes the next."""
    with lock.held(Lab("one"), ["lab", "up"]), lock.held(Lab("two"), ["lab", "up"]):
        pass
    with lock.held(Lab("one"), ["lab", "down"]):
        assert '"command": "lab down"' in (Lab("one").state / "lock").read_text()
