"""Results as people and CI read them."""

from dataclasses import replace
from pathlib import Path

import pytest

from nginx_llm_lab.accounts.figures import Spread
from nginx_llm_lab.accounts.judging import judge
from nginx_llm_lab.accounts.outcome import Loaded
from nginx_llm_lab.evidence.timeline import Done, Event
from nginx_llm_lab.report import tables
from nginx_llm_lab.traffic.scenario import Targets
from nginx_llm_lab.whatif.replay import whatif
from nginx_llm_lab.whatif.spread import traffic

LOAD = Path(__file__).parents[1] / "data/runs/load"


def recorded() -> Loaded:
    """A load that was recorded."""
    load = judge(LOAD)
    assert isinstance(load, Loaded)
    return load


def test_a_lab_that_is_down_is_one_line():
    """No empty table."""
    status = {"project": "p", "containers": []}

    assert tables.status(status) == 'lab "p" is not up'


def test_a_removed_backend_is_named_with_the_next_step() -> None:
    """`lab up` with the number of backends that the lab had."""
    rows = [("backend-1", "healthy"), ("backend-2", "missing"), ("nginx", "healthy")]
    containers = [{"service": name, "state": word, "address": ""} for name, word in rows]
    state = {"project": "p", "containers": containers, "nginx": "1.31.3", "method": "random"}

    shown = tables.status(state | {"front": "f", "door": "d", "differs": []})

    assert "missing: backend-2; to start again: lab up --backends 2" in shown.splitlines()


def test_a_table_has_no_trailing_blanks():
    """It can be pasted."""
    drawn = tables.table("a", "b")
    drawn.add_row("1", "2")

    assert tables.text(drawn).splitlines() == ["a  b", "1  2"]


def test_an_event_reads_as_a_command_would_say_it():
    """Without the fields that it does not use."""
    events = [
        Event(1, "fault", "backend-1", "slow", 4.0),
        Event(2, "fault", "nginx", "kill"),
        Event(3, "heal"),
        Event(4, "scale", backends=5),
        Event(5, "use", method="least_conn", weights=(3, 2, 1)),
        Event(6, "reload"),
    ]

    assert [tables._event(event) for event in events] == [
        "fault backend-1 slow 4",
        "fault nginx kill",
        "heal all",
        "scale to 5 backends",
        "use least_conn 3,2,1",
        "reload",
    ]


def test_a_load_explains_good_and_busy():
    """With the scenario's targets, and for how long requests were sent."""
    load = replace(recorded(), targets=Targets(ttft_ms=300, e2e_ms=5000))
    load = replace(load, figures=replace(load.figures, offered_s=18.0))

    shown = tables.loaded(load).splitlines()

    assert "good: answered without an error, TTFT at most 300 ms, E2E at most 5,000 ms" in shown
    assert "goodput/s: good requests per second of the 18.0 s in which requests were sent" in shown
    assert any(line.startswith("busy s: sum of the requests' durations") for line in shown)


def test_a_load_on_a_busy_machine_says_so():
    """Which backends sent their tokens late, and by how much; the worst first."""
    load = replace(recorded(), timeline=())

    def shown(*late: Spread) -> str:
        groups = zip(load.figures.backends, late, strict=True)
        backends = tuple(replace(group, late_ms=spread) for group, spread in groups)
        return tables.loaded(replace(load, figures=replace(load.figures, backends=backends)))

    in_time = Spread(p99=19, max=400)
    busy = shown(in_time, Spread(p99=30, max=50), Spread(p99=21, max=60))

    assert "too busy" in busy
    assert "  by up to 60 ms at backend-3, 50 ms at backend-2; the times" in busy
    assert "too busy" not in shown(in_time, in_time, in_time)


@pytest.mark.parametrize("kind", ["pause", "hang"])
def test_a_backend_that_the_timeline_held_up_is_no_sign_of_a_busy_machine(kind):
    """Its tokens were late by the pause, or by the time for which it held the requests."""
    load = recorded()
    late = tuple(replace(g, late_ms=Spread(p99=900, max=900)) for g in load.figures.backends)
    load = replace(load, figures=replace(load.figures, backends=late))

    def saturated(backend: str) -> tuple[str, ...]:
        fault = Done(Event(1.0, "fault", backend, kind), 1.0, 1.1)
        return replace(load, timeline=(fault,)).saturated

    assert saturated("backend-2") == ("backend-1", "backend-3")
    assert saturated("all") == ()


@pytest.mark.parametrize("installed", [False, True])
def test_what_to_try_next_are_commands_that_exist(installed):
    """An installed package has no Makefile."""
    lines = tables.what_next("http://127.0.0.1:8080", installed=installed).splitlines()

    assert lines[1] == "try next:"
    assert len(lines) == 8
    assert any("make " in line for line in lines) != installed
    assert any("lab run hash" in line for line in lines) == installed


def test_requests_that_no_server_takes_are_counted() -> None:
    """With max_conns the requests of a row may be fewer than those of the log."""
    lines = [b'{"msec": "9.0", "request_time": "4", "request_uri": "/"}'] * 5
    replayed = whatif(traffic(lines), ["round_robin"], ["a max_conns=2", "b max_conns=1"])

    assert "no server: round_robin, 2 requests found all" in tables.whatif(replayed)
    assert "no server:" not in tables.whatif(whatif(traffic(lines), ["round_robin"], ["a", "b"]))
