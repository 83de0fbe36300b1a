"""An outcome holds only if nothing happened that its run did not plan."""

from pathlib import Path

from nginx_llm_lab.evidence.timeline import Done, Event, Incident, Window
from tests.accounts.judging.run_folders import BEGAN, evidence, outcome, timeline


def test_an_incident_fails_a_load(tmp_path: Path) -> None:
    """A backend that somebody else killed, though every request was answered."""
    incident = Incident("backend-2", "exited with code 137", BEGAN + 3)

    load = outcome(tmp_path, evidence(kind="load", timeline=timeline(incidents=[incident])))

    assert (load.incidents, load.holds) == ((incident,), False)


def test_an_event_that_failed_fails_a_load(tmp_path: Path) -> None:
    """Every request was answered, but the lab was not the one that the scenario describes."""
    failed = Done(Event(1.0, "fault", "backend-2", "kill"), 1.0, 1.1, "backend-2 is exited already")

    load = outcome(tmp_path, evidence(kind="load", timeline=timeline(done=[failed])))

    assert load.ledger.holds
    assert not load.holds


def test_an_incident_fails_a_soak_and_is_named(tmp_path: Path) -> None:
    """A backend that somebody else killed between two steps; the next step's repair started it."""
    notes = {"seed": 3, "seconds": 40.0, "steps": ["reload nginx"], "memory": {}}
    incident = Incident("backend-2", "exited with code 137", BEGAN + 3)
    during = timeline(windows=[Window(BEGAN)], incidents=[incident])

    judged = outcome(tmp_path, evidence(kind="soak", notes=notes, timeline=during))

    assert not judged.holds
    assert "at 3.0 s: backend-2 exited with code 137: no step of the soak" in str(judged)
