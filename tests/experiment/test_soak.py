"""A soak's steps follow from its seed."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from nginx_llm_lab.evidence.timeline import Done, Event, Incident, Timeline, Window
from nginx_llm_lab.experiment import soak
from nginx_llm_lab.experiment.collect import Collector, State
from nginx_llm_lab.stack import faults
from nginx_llm_lab.stack.compose import Lab
from nginx_llm_lab.word import Word

NAMES = ("backend-1", "backend-2", "backend-3")


def test_the_same_seed_does_the_same_steps() -> None:
    """A soak that failed is replayed from the seed that it printed."""
    once, again = (list(islice(soak.steps(7, NAMES), 200)) for _ in range(2))
    other = list(islice(soak.steps(8, NAMES), 200))

    assert once == again
    assert once != other


def test_random_steps_include_every_kind() -> None:
    """Every fault, switches, reloads, all backends at once, and nginx itself."""
    steps = list(islice(soak.steps(1, NAMES), 1000))

    assert {step.do for step in steps} >= {"reload", "use", *faults.kinds("backend-1")}
    assert {"all", "nginx", *NAMES} <= {step.target for step in steps}


def test_planned_steps_have_exact_counts() -> None:
    """20 kills are 20 kills, in an order that the seed decides."""
    counts = {"kill": 20, "reload": 50, "use": 50}

    steps = soak.steps_of(counts, 3, NAMES)

    assert Counter(step.do for step in steps) == counts
    assert steps == soak.steps_of(counts, 3, NAMES)
    assert steps != soak.steps_of(counts, 4, NAMES)


def test_a_step_is_printed_in_words() -> None:
    """The line that a soak prints before it does it."""
    assert str(soak.Step("kill", "backend-2", 1.25)) == "kill backend-2 for 1.2 s"
    assert str(soak.Step("use", "round_robin", weights=(3, 2, 1))) == "use round_robin 3,2,1"


@pytest.mark.parametrize(
    ("words", "windows"),
    [
        (["PASS"], [(100.0, 101.0)]),
        (["FAIL"], [(100.0, 101.0)]),
        (["UNSURE", "PASS"], [(100.0, 102.0)]),
        (["UNSURE", "UNSURE", "PASS"], [(100.0, 102.0), (101.0, 102.0)]),
        (["UNSURE"] * 99, [(100.0, 106.0), (105.0, 106.0)]),
    ],
)
def test_traffic_goes_on_until_it_decides(
    monkeypatch: pytest.MonkeyPatch, words: list[str], windows: list[tuple[float, float]]
) -> None:
    """The requests since the repair are judged together first, then the last ones by themselves."""
    clock, verdicts, slower = [100.0], iter(words), []

    def send(times: int) -> None:
        slower.append(times)
        clock[0] += 1

    monkeypatch.setattr(soak, "_sleep", lambda _seconds: None)
    monkeypatch.setattr("time.time", lambda: clock[0])

    observed = soak.until_decided(
        Window(100.0, after="kill x"), send, lambda _: Word(next(verdicts))
    )

    assert slower == [1, 4, 4, 4, 4, 4][: len(slower)]
    assert [(window.start, window.end) for window in observed] == windows
    assert [window.again for window in observed] == [False, True][: len(windows)]


def test_what_ended_a_container_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a later step nor the collection finds it again; the soak's own kill is left out."""
    running = State("one", "running", 1.0, 0.0, 0)
    killed = replace(running, status="exited", finished=5.0, exit_code=137)
    before = {"backend-1": running, "backend-2": running}
    timeline = Timeline(0.0, done=[Done(Event(0.0, "fault", "backend-1", "kill"), 0.0, 1.0)])
    run = object.__new__(soak._Run)
    run.lab, run._timeline = Lab("no-such-lab"), timeline
    run._collector = Collector(run.lab, "", 0, timeline, before)
    now = {"backend-1": killed, "backend-2": killed}
    monkeypatch.setattr(soak, "states", lambda _lab: now)

    run.record_incidents(timeline.done[-1:])
    run.record_incidents([])

    assert timeline.incidents == [Incident("backend-2", "exited with code 137", 5.0)]
    assert run._collector.states == now
