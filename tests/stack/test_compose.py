"""One lab on the engine: its names, ports, images and journals."""

import socket

import pytest

from nginx_llm_lab.errors import LabError, UsageError
from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack import compose


def test_the_journal_of_a_removed_backend_is_kept(tmp_path, monkeypatch):
    """Of it only what ended since the moment asked for, and nothing that is no entry."""
    monkeypatch.setattr(compose, "state_folder", lambda: tmp_path)
    lab = compose.Lab("shrunk")
    assert list(compose.removed_journals(lab, 0.0)) == []
    early, late = b'{"t":10.500000,"id":"a"}\n', b'{"t":11.500000,"id":"b"}\n'
    (lab.state / "removed.jsonl").write_bytes(early + b"backend-3: port 8000\n" + late)

    assert list(compose.removed_journals(lab, 0.0)) == [early, late]
    assert list(compose.removed_journals(lab, 11.0)) == [late]


def test_a_port_in_use_is_named_with_a_way_out():
    """The error says which port, and how to take others."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        with pytest.raises(LabError, match=f"port {taken.getsockname()[1]} on 127.0.0.1 is in use"):
            compose.refuse_taken(taken.getsockname()[1])


@pytest.mark.parametrize("count", [0, 33, -1])
def test_the_number_of_backends_has_bounds(count):
    """1 to 32."""
    with pytest.raises(UsageError, match="--backends"):
        compose.up(compose.Lab(), count)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("LAB_PORT", "x"), ("LAB_PORT", "0"), ("LAB_DOOR_PORT", "70000"), ("LAB_PROJECT", "A b")],
)
def test_a_bad_setting_is_named(variable, value, monkeypatch):
    """Which one, and what it takes."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(UsageError, match=value):
        compose.from_environment()


def test_services_are_in_natural_order():
    """backend-2 before backend-10."""
    names = ["backend-10", "backend-2", "backend-1"]

    assert sorted(names, key=compose.natural) == ["backend-1", "backend-2", "backend-10"]


def test_one_choice_of_nginx_decides_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """For `lab up` and `lab verify` alike; the checkout's tag is part of it."""
    monkeypatch.setenv("LAB_TAG", "mine")
    monkeypatch.delenv("NGINX", raising=False)
    assert compose.image("nginx") == "nginx-llm-lab/nginx:mainline-mine"

    monkeypatch.setenv("NGINX", "debian")
    assert compose.image("nginx") == "nginx-llm-lab/nginx:debian-mine"


class Started:
    """A container as far as its folder goes."""

    def __init__(self, folder):
        self.labels = {"com.docker.compose.project.working_dir": str(folder)}


def test_a_lab_of_another_checkout_is_named_with_its_folder(tmp_path, monkeypatch):
    """It is neither changed nor taken down from here; a folder that is gone has no owner."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(compose, "containers", lambda _: [Started(other)])

    for verb in (compose.down, compose.up):
        with pytest.raises(LabError, match=f"was started from {other}, not from {ROOT}"):
            verb(compose.Lab("shared"))
    other.rmdir()
    compose.refuse_other_checkout(compose.Lab("shared"))
    monkeypatch.setattr(compose, "containers", lambda _: [Started(ROOT)])
    compose.refuse_other_checkout(compose.Lab("shared"))
