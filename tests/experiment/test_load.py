"""Which stretch of a load is judged, and how methods are compared."""

import pytest

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.evidence.timeline import Done, Event, Timeline, Window
from nginx_llm_lab.experiment import load
from nginx_llm_lab.experiment.collect import before_first_change, unlogged
from nginx_llm_lab.experiment.fleet import Condition
from nginx_llm_lab.stack import compose
from nginx_llm_lab.stack.compose import Lab
from nginx_llm_lab.traffic.scenario import Scenario


def test_picks_are_judged_up_to_the_first_event() -> None:
    """From there on nginx has other servers, or broken ones."""
    reload = Done(Event(8.0, "reload"), 8.1, 8.4)
    fault = Done(Event(9.0, "fault", "backend-1", "kill"), 9.0, 9.2)

    assert before_first_change(Timeline(100.0, done=[reload, fault])) == Window(100.0, 108.1)
    assert before_first_change(Timeline(100.0)) == Window(100.0, None)


def test_picks_are_judged_up_to_the_first_request_that_nginx_did_not_log() -> None:
    """A worker that was killed took its turn; one that was never sent took none."""
    records = [Record(0, "a", 1.0, 101.0), Record(1, "b", 2.0, 102.0), Record(2, "c", 3.0)]

    lost = unlogged(records, [Hit(("backend-1",), 200, request_id="a")])

    assert lost == [102.0]
    assert before_first_change(Timeline(100.0), lost) == Window(100.0, 102.0)


@pytest.mark.parametrize("backends", [2, 1])
def test_a_load_says_that_it_started_a_missing_backend(
    monkeypatch: pytest.MonkeyPatch, backends: int
) -> None:
    """Not if the scenario does without it."""
    sound = Condition("healthy", "instant", 1.0)
    answers = iter([{"backend-1": sound}, {f"backend-{n + 1}": sound for n in range(backends)}])
    monkeypatch.setattr(compose, "containers", lambda _lab: ["backend-1"])
    monkeypatch.setattr(load, "conditions", lambda _lab: next(answers))
    monkeypatch.setattr(load, "missing", lambda _lab: ["backend-2"])
    monkeypatch.setattr(load, "up", lambda *_: None)
    monkeypatch.setattr(load, "apply_timing", lambda *_: None)

    changed = load.prepare(Lab("robbed"), Scenario("test", requests=1, backends=backends))

    expected = ("backend-2 was missing, now instant, time scale 1",)
    assert changed == (expected if backends == 2 else ())
