"""The override that gives a lab another number of backends."""

import socket

import pytest
import yaml

from nginx_llm_lab.errors import LabError, UsageError
from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack import compose

BASE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_more_backends_are_copies_of_the_first():
    """backend-5 differs from backend-1 in its name alone."""
    found = compose.override(BASE, 5)["services"]["backend-5"]

    assert found["hostname"] == "backend-5"
    assert found["cap_drop"] == ["ALL"]
    assert found["image"] == BASE["services"]["backend-1"]["image"]


def test_fewer_backends_leave_the_surplus_behind_a_profile():
    """Nothing starts the profile."""
    services = compose.override(BASE, 1)["services"]

    assert services["backend-2"] == services["backend-3"] == {"profiles": ["surplus"]}


def test_nginx_waits_for_the_backends_that_there_are():
    """It could not resolve the others' names."""
    waits = compose.override(BASE, 2)["services"]["nginx"]["depends_on"]

    assert sorted(waits) == ["backend-1", "backend-2"]


def test_the_override_replaces_what_nginx_waits_for():
    """Merged mappings would keep the surplus."""
    text = yaml.safe_dump(compose.override(BASE, 2))

    assert "depends_on: !override" in text


def test_a_large_fleet_is_asked_for_its_health_less_often():
    """32 probes a few times a second would be a load of their own."""
    services = compose.override(BASE, 32)["services"]

    assert services["backend-32"]["healthcheck"]["interval"] == "32s"


def test_a_backend_is_the_same_in_a_fleet_of_any_size():
    """Else Compose would recreate those that run, and whatever they answer would be lost."""
    small, large = (compose.override(BASE, number)["services"] for number in (5, 9))

    assert [small.get(f"backend-{n}") for n in range(1, 6)] == [
        large.get(f"backend-{n}") for n in range(1, 6)
    ]


def test_a_removed_backend_leaves_its_journal_to_the_lab(tmp_path, monkeypatch):
    """Of it only what ended since the moment asked for, and nothing that is no entry."""
    monkeypatch.setattr(compose, "state_folder", lambda: tmp_path)
    lab = compose.Lab("shrunk")
    assert list(compose.gone(lab, 0.0)) == []
    early, late = b'{"t":10.500000,"id":"a"}\n', b'{"t":11.500000,"id":"b"}\n'
    (lab.state / "removed.jsonl").write_bytes(early + b"backend-3: port 8000\n" + late)

    assert list(compose.gone(lab, 0.0)) == [early, late]
    assert list(compose.gone(lab, 11.0)) == [late]


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
