"""A load has figures, fates and a verdict on its picks."""

from dataclasses import replace
from pathlib import Path

from nginx_llm_lab.accounts.outcome import Loaded
from nginx_llm_lab.evidence.timeline import Done, Event
from tests.accounts.judging.run_folders import evidence, outcome, timeline


def test_a_load_is_judged_from_its_folder(tmp_path: Path) -> None:
    """Figures, fates, picks."""
    load = outcome(tmp_path, evidence(kind="load", traffic="chat", sequential=False))

    assert isinstance(load, Loaded)
    assert (load.scenario, load.figures.overall.requests) == ("chat", 40)
    assert load.ledger.counts() == {
        "POST": {
            "answered once": 40,
            "answered after a retry": 0,
            "failed": 0,
            "refused by a limit": 0,
            "executed twice": 0,
            "unexplained": 0,
        }
    }
    assert load.holds


def test_a_failure_that_nothing_explains_fails_a_load_without_a_timeline(tmp_path: Path) -> None:
    """The output has their number, servers, time and reason."""
    right = evidence(kind="load")
    broken = tuple(
        replace(one, error="truncated", truncated=True) if one.number in (10, 12) else one
        for one in right.records
    )

    load = outcome(tmp_path, replace(right, records=broken))

    assert not load.holds
    assert load.ledger.problems() == [
        "2 POST at backend-1, from 10.0 to 12.0 s: broken off (truncated), and no fault of"
        " backend-1 or nginx explains it"
    ]


def test_events_that_were_not_reached_are_named(tmp_path: Path) -> None:
    """The scenario planned two, one was done."""
    planned = [Event(1.0, "reload"), Event(90.0, "heal")]
    scenario = {"duration": 40.0, "timeline": [{"at": e.at, "do": e.do} for e in planned]}
    done = timeline(done=[Done(planned[0], 1.0, 1.2)])

    load = outcome(tmp_path, evidence(kind="load", timeline=done, scenario=scenario))

    assert load.skipped == (planned[1],)
