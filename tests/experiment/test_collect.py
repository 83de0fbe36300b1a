"""Changes of services that no event explains, and the names of run folders."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.timeline import Done, Event, Incident, Timeline
from nginx_llm_lab.experiment.collect import (
    State,
    before_first_change,
    fresh_folder,
    incidents,
    new_workers,
    refuse_stopped_nginx,
    traffic_name,
    undone_incidents,
)

RUNNING = State("id", "running", started=100.0)
BEFORE = {"nginx": RUNNING, "backend-1": RUNNING, "backend-2": RUNNING}
KILLED = replace(RUNNING, status="exited", finished=150.0, exit_code=137)


def timeline(*events: Event) -> Timeline:
    """A run that began at second 140."""
    return Timeline(140.0, done=[Done(event, event.at, event.at) for event in events])


def test_a_backend_killed_from_elsewhere_is_named_with_the_moment() -> None:
    """The engine says when it ended, and with which code."""
    after = {**BEFORE, "backend-2": KILLED}

    assert list(incidents(BEFORE, after, timeline())) == [
        Incident("backend-2", "exited with code 137", 150.0)
    ]


def test_a_change_by_an_event_is_no_incident() -> None:
    """A fault of that backend, or of all; a heal starts whatever is down."""
    after = {**BEFORE, "backend-2": KILLED}

    for event in (
        Event(5.0, "fault", "backend-2", "kill"),
        Event(5.0, "fault", "all", "kill"),
        Event(5.0, "heal"),
    ):
        assert list(incidents(BEFORE, after, timeline(event))) == []
    elsewhere = timeline(Event(5.0, "fault", "backend-1", "kill"))
    assert [incident.service for incident in incidents(BEFORE, after, elsewhere)] == ["backend-2"]


def test_a_restart_and_a_pause_are_seen() -> None:
    """The start time of the restarted one; the paused state."""
    after = {
        **BEFORE,
        "nginx": replace(RUNNING, finished=155.0, started=160.0, exit_code=1),
        "backend-1": replace(RUNNING, status="paused"),
    }

    [restart, pause] = incidents(BEFORE, after, timeline())

    assert restart == Incident("nginx", "ended with code 1 and was started again", 155.0)
    assert (pause.service, pause.what) == ("backend-1", "is paused")


def engine_event(action: str, at: float, **attributes: str) -> dict[str, Any]:
    """An event as the engine describes it; with `container`, one of a network."""
    attributes = {"name": "x", **attributes}
    actor = {"ID": "net" if "container" in attributes else "two", "Attributes": attributes}
    return {"Action": action, "Actor": actor, "timeNano": int(at * 1e9)}


def test_what_was_undone_before_the_end_is_still_named() -> None:
    """A backend that was paused and is running again; one without a network for a while."""
    services = {"backend-2": replace(RUNNING, id="two"), "nginx": RUNNING}
    planned = timeline(Event(20.0, "fault", "backend-2", "pause"))
    events = [
        engine_event("pause", 150.0),
        engine_event("disconnect", 152.0, container="two"),
        engine_event("disconnect", 152.01, container="two"),  # the engine says it twice
        engine_event("kill", 154.0, signal="19"),
        engine_event("pause", 160.0),  # by the timeline
        engine_event("kill", 170.0, signal="9"),  # `incidents` reports this end
        engine_event("die", 170.1),
        engine_event("disconnect", 170.2, container="two"),
        engine_event("disconnect", 171.0, container="of another lab"),
    ]

    assert list(undone_incidents(events, services, planned)) == [
        Incident("backend-2", "was paused", 150.0),
        Incident("backend-2", "was disconnected from the network", 152.0),
        Incident("backend-2", "was sent signal 19", 154.0),
    ]


def test_a_removed_backend_is_named_once_with_the_moment_of_its_removal() -> None:
    """The engine ends it first; afterwards no state shows it."""
    during = timeline()
    events = [
        engine_event("kill", 150.0, signal="9"),
        engine_event("die", 150.1),
        engine_event("disconnect", 150.2, container="two"),
        engine_event("destroy", 150.3),
    ]
    before = {**BEFORE, "backend-2": replace(RUNNING, id="two")}

    during.incidents += undone_incidents(events, before, during)
    after = {name: state for name, state in before.items() if name != "backend-2"}

    assert during.incidents == [Incident("backend-2", "was removed", 150.3)]
    assert list(incidents(before, after, during)) == []


def test_a_run_that_lost_its_nginx_ends_with_what_stopped_it_and_when() -> None:
    """`nginx -s stop` from elsewhere, 10 s after the run began; a running one is read."""
    after = {**BEFORE, "nginx": replace(RUNNING, status="exited", finished=150.0)}
    during = timeline()
    during.incidents += incidents(BEFORE, after, during)

    refuse_stopped_nginx(BEFORE, during)
    with pytest.raises(LabError, match=r"nginx exited with code 0 10.0 s after the run began"):
        refuse_stopped_nginx(after, during)


def test_new_workers_of_nginx_are_an_incident() -> None:
    """A reload from elsewhere: the turns begin anew. The moment is when the first request came."""
    hits = [
        Hit(("a",), msec=at + 0.5, request_time=0.5, pid=pid)
        for at, pid in ((150, 7), (152, 9), (151, 9), (153, 7))
    ]
    what = "has new workers: it was reloaded, or a worker was killed"

    assert list(new_workers(hits, frozenset({7, 8}), timeline())) == [
        Incident("nginx", what, 151.0)
    ]
    for event in (Event(5.0, "reload"), Event(5.0, "fault", "nginx", "restart")):
        assert list(new_workers(hits, frozenset({7, 8}), timeline(event))) == []
    assert list(new_workers(hits, frozenset({7, 9}), timeline())) == []
    assert list(new_workers(hits, frozenset(), timeline())) == []


def test_picks_are_judged_until_an_incident_of_nginx() -> None:
    """Whatever happened to a backend is in the log that the picks are judged by."""
    run = timeline(Event(30.0, "fault", "backend-1", "slow"))
    run.incidents += [Incident("backend-2", "was paused", 145.0), Incident("nginx", "x", 150.0)]

    assert before_first_change(run).end == 150.0


def test_a_folder_is_named_after_its_run() -> None:
    """A run by its method, a load by its scenario too."""
    assert traffic_name("run", "hash", "300 generated requests") == "hash"
    assert traffic_name("load", "hash", "bursts") == "bursts-hash"
    assert traffic_name("soak", "several", "mixed") == "soak-several"


def test_git_sees_no_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a user's repository whose own .gitignore does not list them."""
    runs = tmp_path / ".lab/runs"
    monkeypatch.setattr("nginx_llm_lab.experiment.collect.runs_folder", lambda: runs)

    fresh_folder("hash")

    assert (runs / ".gitignore").read_text() == "*\n"


def test_a_users_folder_gets_no_ignore_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LAB_RUNS may name a folder in which the user keeps other files."""
    monkeypatch.setattr("nginx_llm_lab.experiment.collect.runs_folder", lambda: tmp_path)

    fresh_folder("hash")

    assert not (tmp_path / ".gitignore").exists()
