"""A scenario's fleet has every backend that there is at any time."""

from nginx_llm_lab.backends.llm.profiles import Limits
from nginx_llm_lab.traffic.scenario import Machine, machines
from nginx_llm_lab.traffic.scenario_file import parse


def test_the_fleet_covers_backends_that_come_later() -> None:
    """A scale event to three makes backend-3 part of the fleet."""
    text = """
        {requests: 1, rate: 1, backends: 2, profile: l40s-8b,
         fleet: {backend-1: h100-8b, backend-3: {profile: cpu-small, slow: 2, kv_blocks: 64}},
         timeline: [{at: 1, do: scale, backends: 3}]}
    """

    fleet = machines(parse(text, "x.yaml"))

    assert fleet == {
        "backend-1": Machine("h100-8b"),
        "backend-2": Machine("l40s-8b"),
        "backend-3": Machine("cpu-small", 2.0, Limits(kv_blocks=64)),
    }
