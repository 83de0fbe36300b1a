"""How a backend runs, in words, and which choice of method was saved."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.experiment.fleet import Condition, choose, saved
from nginx_llm_lab.stack import compose
from nginx_llm_lab.stack.compose import Lab


def test_a_slow_backend_is_sound_and_shows_its_speed() -> None:
    """A scenario may change its speed; nothing about it is broken."""
    slow = Condition("healthy", "h100-8b", 1.0, slow=4.0)

    assert slow.is_sound
    assert str(slow) == "h100-8b, time scale 1, slow 4"


def test_a_backend_that_misbehaves_or_does_not_run_is_not_sound() -> None:
    """A load refuses to begin on it."""
    wrong = Condition("healthy", "instant", 1.0, wrong=("error_rate 0.5",))

    assert not wrong.is_sound
    assert str(wrong) == "instant, time scale 1, error_rate 0.5"
    assert not Condition("exited").is_sound
    assert str(Condition("exited")) == "exited"


def test_limits_that_differ_from_the_profile_are_shown() -> None:
    """A user sees why a backend queues."""
    limited = Condition("healthy", "h100-8b", 1.0, limits={"max_num_seqs": 4, "queue_limit": 9})

    assert limited.is_sound
    assert str(limited) == "h100-8b, max_num_seqs 4, queue_limit 9, time scale 1"


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "[]",
        '{"method": "nope", "backends": ["backend-1"]}',
        '{"method": "random", "backends": ["backend-1"], "weights": [1, 2]}',
        '{"method": "random", "backends": ["backend-1"], "parameters": 5}',
        '{"method": "random", "backends": ["backend-1"], "prefix": {"characters": "x"}}',
    ],
)
def test_a_saved_choice_that_somebody_damaged_counts_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The lab then runs nginx's default, round robin."""
    monkeypatch.setattr(Lab, "state", tmp_path)
    lab = Lab("damaged")
    lab.active.mkdir(parents=True)
    (lab.active / "choice.json").write_text(text)

    assert saved(lab).method == "round_robin"


def test_a_saved_choice_of_an_earlier_version_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields that it lacks have their defaults."""
    monkeypatch.setattr(Lab, "state", tmp_path)
    lab = Lab("older")
    lab.active.mkdir(parents=True)
    text = '{"method": "hash", "backends": ["backend-1", "backend-2"], "weights": [2, 1]}'
    (lab.active / "choice.json").write_text(text)

    assert saved(lab).weights == (2, 1)


def running_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backends: tuple[str, ...]
) -> Lab:
    """A lab of three backends, of which only these still have a container."""
    labels = [{"com.docker.compose.service": name} for name in (*backends, "nginx")]
    containers = [SimpleNamespace(labels=label) for label in labels]
    monkeypatch.setattr(Lab, "state", tmp_path)
    monkeypatch.setattr(compose, "containers", lambda _lab: containers)
    lab = Lab("robbed")
    lab.active.mkdir(parents=True)
    text = '{"method": "random", "backends": ["backend-1", "backend-2", "backend-3"]}'
    (lab.active / "choice.json").write_text(text)
    return lab


def test_no_method_is_chosen_while_a_backend_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker rm -f` of one: the run would count two servers without a word."""
    lab = running_without(monkeypatch, tmp_path, ("backend-1", "backend-3"))

    with pytest.raises(LabError, match="missing: backend-2") as refused:
        choose(lab, "random")

    assert refused.value.hint == "lab up --backends 3"


def test_all_backends_of_a_complete_lab_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is missing."""
    lab = running_without(monkeypatch, tmp_path, ("backend-1", "backend-2", "backend-3"))

    assert choose(lab, "random").backends == ("backend-1", "backend-2", "backend-3")
