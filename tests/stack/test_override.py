"""The override that gives a lab another number of backends."""

import yaml

from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack.override import Dumper, override

BASE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_more_backends_are_copies_of_the_first():
    """backend-5 differs from backend-1 in its name alone."""
    service = override(BASE, 5)["services"]["backend-5"]

    assert service["hostname"] == "backend-5"
    assert service["cap_drop"] == ["ALL"]
    assert service["image"] == BASE["services"]["backend-1"]["image"]


def test_fewer_backends_leave_the_surplus_behind_a_profile():
    """Nothing starts the profile."""
    services = override(BASE, 1)["services"]

    assert services["backend-2"] == services["backend-3"] == {"profiles": ["surplus"]}


def test_nginx_waits_for_the_backends_that_there_are():
    """It could not resolve the others' names."""
    waits = override(BASE, 2)["services"]["nginx"]["depends_on"]

    assert sorted(waits) == ["backend-1", "backend-2"]


def test_the_override_replaces_what_nginx_waits_for():
    """Merged mappings would keep the surplus."""
    text = yaml.dump(override(BASE, 2), Dumper=Dumper)

    assert "depends_on: !override" in text


def test_a_large_fleet_is_asked_for_its_health_less_often():
    """32 probes a few times a second would be a load of their own."""
    services = override(BASE, 32)["services"]

    assert services["backend-32"]["healthcheck"]["interval"] == "32s"


def test_a_backend_is_the_same_in_a_fleet_of_any_size():
    """Else Compose would recreate those that run, and whatever they answer would be lost."""
    small, large = (override(BASE, number)["services"] for number in (5, 9))

    assert [small.get(f"backend-{n}") for n in range(1, 6)] == [
        large.get(f"backend-{n}") for n in range(1, 6)
    ]
