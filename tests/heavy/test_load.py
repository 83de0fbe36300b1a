"""Open loop and full accounts: ten thousand streams, and a backend that stalls among them."""

import os

import pytest

from nginx_llm_lab.evidence.timeline import Event
from nginx_llm_lab.experiment import load
from nginx_llm_lab.experiment.fleet import up
from nginx_llm_lab.traffic.scenario import Lengths, Scenario


@pytest.fixture
def fleet(five):
    """The five backends, which a scenario changes; afterwards they are as they were."""
    yield five.lab
    up(five.lab, 5)


@pytest.fixture
def most_late():
    """By how many ms 99 % of the requests may be late: 5, or 50 where others use the machine."""
    return 5.0 if os.getloadavg()[0] < 1.0 else 50.0


def streams(name: str, requests: int, *events: Event) -> Scenario:
    """200 streams a second of mixed lengths, to backends ten times faster than life."""
    return Scenario(
        name,
        seed=3,
        requests=requests,
        arrivals="poisson",
        rate=200.0,
        prompt=Lengths(tokens=64),
        output=Lengths("lognormal", median=12, sigma=0.7, max=100),
        backends=5,
        profile="h100-8b",
        time_scale=10.0,
        timeline=events,
    )


def test_ten_thousand_streams_are_accounted_for_on_three_sides(fleet, say, most_late):
    """Client, nginx and backends agree on each; whatever token was sent was received."""
    scenario = streams("ten-thousand", 10_000)

    loaded = load.load(fleet, scenario, load.choice_without_backends("least_conn"))

    figures = loaded.figures
    late = figures.lateness_ms
    say(
        f" {figures.overall.requests:,} streams, {figures.overall.tokens:,} tokens:"
        f" {len(loaded.findings)} findings; late by {late.p50:.2f} ms (p50),"
        f" {late.p99:.2f} ms (p99), {late.max:.1f} ms (most)"
    )
    assert figures.overall.requests == 10_000
    assert figures.overall.errors == {}
    assert loaded.findings == ()
    assert (late.p99 or 0.0) < most_late


def test_a_stalled_backend_delays_no_other_request(fleet, say, most_late):
    """backend-1 is frozen for a second: nobody's sending is later than without it."""
    events = (
        Event(at=5, do="fault", backend="backend-1", kind="pause"),
        Event(at=6.2, do="heal", backend="backend-1"),
    )
    scenario = streams("stalled", 3_000, *events)

    loaded = load.load(fleet, scenario, load.choice_without_backends("least_conn"))

    late = loaded.figures.lateness_ms
    [paused, healed] = loaded.timeline
    say(
        f" frozen for {healed.began - paused.ended:.1f} s: late by {late.p99:.2f} ms (p99),"
        f" {late.max:.1f} ms (most)"
    )
    assert (paused.error, healed.error) == ("", "")
    assert loaded.holds, loaded.findings
    assert (late.max or 0.0) < 500  # the backend stood still for a second
    assert (late.p99 or 0.0) < most_late
