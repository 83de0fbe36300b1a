"""Which stretch of a load is judged, and how methods are compared."""

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.evidence.timeline import Done, Event, Timeline, Window
from nginx_llm_lab.experiment.collect import before_first_change, unlogged


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
