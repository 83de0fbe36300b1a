"""The outcome of a run is computed from its folder, for every command."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from nginx_llm_lab.accounts.outcome import (
    Loaded,
    Outcome,
    Soaked,
    judge,
    keys_as_sent,
    recoveries_of,
)
from nginx_llm_lab.accounts.scorecard import RUNS, Run
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence import folder
from nginx_llm_lab.evidence.folder import Evidence
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.evidence.timeline import Done, Event, Incident, Tenure, Timeline, Window
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.word import Word

BACKENDS = ("backend-1", "backend-2")
ADDRESS = {"backend-1": "10.0.0.1:8000", "backend-2": "10.0.0.2:8000"}
CLAIM = "upstream llm { zone llm 64k; server backend-1:8000; server backend-2:8000; }\n"
BEGAN = 1000.0


def took(number: int) -> str:
    """The server that must answer a request by round robin."""
    return BACKENDS[number % 2]


def line(number: int, backend: str, **changes: str) -> str:
    """nginx's line of a request that took 10 ms, one after the other."""
    fields = {
        "request_id": f"id-{number}",
        "msec": f"{BEGAN + number + 0.01:.3f}",
        "request_time": "0.010",
        "status": "200",
        "request_method": "POST",
        "request_uri": "/v1/chat/completions",
        "pid": "7",
        "upstream_addr": ADDRESS[backend],
        "upstream_status": "200",
        "upstream_connect_time": "0.000",
        "upstream_header_time": "0.010",
        "upstream_response_time": "0.010",
    }
    return json.dumps(fields | changes) + "\n"


def entry(number: int, backend: str) -> str:
    """The backend's line of the same."""
    fields = {"id": f"id-{number}", "backend": backend, "start": BEGAN + number, "status": 200}
    fields |= {"t": BEGAN + number + 0.01, "fate": "ok", "method": "POST"}
    return json.dumps(fields) + "\n"


def record(number: int, backend: str, **changes: Any) -> Record:
    """The client's record of the same."""
    moment = BEGAN + number
    made = Record(number, f"id-{number}", moment, moment, end=moment + 0.01, status=200)
    return replace(made, backend=backend, stream=False, **changes)


def evidence(requests: int = 40, **changes: Any) -> Evidence:
    """A correct round robin in all three logs."""
    numbers = range(requests)
    made = Evidence(
        method="round_robin",
        traffic="some requests",
        sequential=True,
        sent=requests,
        addresses={address: f"{name}:8000" for name, address in ADDRESS.items()},
        claim=CLAIM,
        configuration=CLAIM,
        access="".join(line(number, took(number)) for number in numbers).encode(),
        journal="".join(entry(number, took(number)) for number in numbers).encode(),
        records=tuple(record(number, took(number)) for number in numbers),
        timeline=timeline(),
    )
    return replace(made, **changes)


def timeline(**changes: Any) -> Timeline:
    """A run without events."""
    homes = [Tenure(address, name, BEGAN - 5) for name, address in ADDRESS.items()]
    made = Timeline(BEGAN, BACKENDS, homes, windows=[Window(BEGAN)])
    return replace(made, **changes)


def outcome(tmp_path: Path, kept: Evidence) -> Any:
    """What is computed from the folder."""
    folder.write(kept, tmp_path / "run")
    return judge(tmp_path / "run")


def test_a_run_has_a_split_and_a_verdict(tmp_path: Path) -> None:
    """Counted three ways."""
    run = outcome(tmp_path, evidence())

    assert isinstance(run, Outcome)
    assert (str(run.split), run.counts.agree) == ("backend-1: 20, backend-2: 20", True)
    assert run.case()["name"] == "round_robin: some requests"


def test_a_client_with_another_count_fails_the_run(tmp_path: Path) -> None:
    """Whatever the verdict on the picks."""
    run = outcome(tmp_path, evidence(sent=41))

    assert not run.holds
    assert "client: 41" in str(run)


@pytest.mark.parametrize(("method", "word"), [("", "UNSURE"), ("hash $uri;", "FAIL")])
def test_a_run_in_which_nginx_was_reloaded_does_not_fail_by_turns(
    tmp_path: Path, method: str, word: str
) -> None:
    """The new workers begin with the first server again; a hash has nothing to forget."""
    incident = Incident("nginx", "has new workers", BEGAN + 21)
    claim = CLAIM.replace("{", f"{{ {method}", 1)
    lines = "".join(line(n, took(n if n < 21 else n + 1)) for n in range(200)).encode()
    entries = "".join(entry(n, took(n if n < 21 else n + 1)) for n in range(200)).encode()
    right = evidence(200, claim=claim, access=lines, journal=entries)

    before = outcome(tmp_path / "a", right)
    after = outcome(tmp_path / "b", replace(right, timeline=timeline(incidents=[incident])))

    assert (before.verdict.word, after.verdict.word) == ("FAIL", word)
    assert after.verdict.why.startswith("nginx has new workers: ") == (word == "UNSURE")


@pytest.mark.parametrize(("sent", "fails"), [("é", False), ("e", True)])
def test_a_key_is_compared_with_what_the_client_sent(
    tmp_path: Path, sent: str, fails: bool
) -> None:
    """nginx logged "é" for each of them."""
    claim = CLAIM.replace("{", "{ hash $http_x_user;", 1)
    key = sent.encode().decode("latin-1")
    records = tuple(record(number, BACKENDS[0], key=key) for number in range(9))
    access = "".join(line(n, BACKENDS[0], hash_key="é") for n in range(9)).encode()
    entries = "".join(entry(n, BACKENDS[0]) for n in range(9)).encode()

    run = outcome(
        tmp_path, evidence(9, claim=claim, access=access, journal=entries, records=records)
    )

    assert (run.verdict.word == "FAIL") == fails, run
    assert ('expected "e" (1 bytes)' in run.verdict.why) == fails


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


def test_foreign_requests_do_not_make_a_load_fail(tmp_path: Path) -> None:
    """Every second request is another client's, so all of the load's go to one backend."""
    right = evidence(80, kind="load", sequential=False)
    own = tuple(one for one in right.records if one.number % 2 == 0)

    load = outcome(tmp_path, replace(right, records=own, sent=40))

    assert load.holds
    assert load.verdict.word != Word.FAIL
    assert "40 foreign requests" in load.verdict.why


def test_a_load_that_was_interrupted_is_judged_by_the_requests_that_were_cut_off_too(
    tmp_path: Path,
) -> None:
    """Those at backend-2 took long, so none of them has a record; their picks were right."""
    right = evidence(80, kind="load", sequential=False, interrupted=True)
    own = tuple(one for one in right.records if one.number % 2 == 0)
    lines = "".join(line(n, took(n), server_port="8081") for n in range(80)).encode()

    load = outcome(tmp_path, replace(right, records=own, sent=40, access=lines))

    assert load.verdict.hits == 80
    assert "foreign" not in load.verdict.why
    assert load.verdict.word != Word.FAIL


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


def test_events_that_were_not_reached_are_named(tmp_path: Path) -> None:
    """The scenario planned two, one was done."""
    planned = [Event(1.0, "reload"), Event(90.0, "heal")]
    scenario = {"duration": 40.0, "timeline": [{"at": e.at, "do": e.do} for e in planned]}
    done = timeline(done=[Done(planned[0], 1.0, 1.2)])

    load = outcome(tmp_path, evidence(kind="load", timeline=done, scenario=scenario))

    assert load.skipped == (planned[1],)


def test_a_soak_is_judged_from_its_folder(tmp_path: Path) -> None:
    """Each window by the claim that nginx had then."""
    windows = [Window(BEGAN + 10, BEGAN + 30, "upstream-2.conf", fresh=False, after="kill x")]
    notes = {"seed": 3, "seconds": 40.0, "steps": ["kill x"], "memory": {"nginx": [1, 2]}}
    soak = evidence(kind="soak", notes=notes, timeline=timeline(windows=windows))

    judged = outcome(tmp_path, replace(soak, claims={"upstream-2.conf": CLAIM}))

    assert isinstance(judged, Soaked)
    assert [(recovery.step, recovery.verdict.hits) for recovery in judged.recoveries] == [
        ("kill x", 20)
    ]
    assert judged.ledger.holds


def test_an_incident_fails_a_soak_and_is_named(tmp_path: Path) -> None:
    """A backend that somebody else killed between two steps; the next step's repair started it."""
    notes = {"seed": 3, "seconds": 40.0, "steps": ["reload nginx"], "memory": {}}
    incident = Incident("backend-2", "exited with code 137", BEGAN + 3)
    during = timeline(windows=[Window(BEGAN)], incidents=[incident])

    judged = outcome(tmp_path, evidence(kind="soak", notes=notes, timeline=during))

    assert not judged.holds
    assert "at 3.0 s: backend-2 exited with code 137: no step of the soak" in str(judged)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["PASS"], ("PASS", 0.0)),
        (["UNSURE", "PASS"], ("PASS", 5.0)),
        (["UNSURE", "UNSURE"], ("UNSURE", 5.0)),
        (["UNSURE", "FAIL"], ("FAIL", 5.0)),
        (["FAIL", "PASS"], ("FAIL", 0.0)),
        (["PASS", "FAIL"], ("PASS", 0.0)),
    ],
)
def test_a_later_window_counts_only_if_the_first_is_unsure(
    words: list[str], expected: tuple[str, float]
) -> None:
    """A FAIL of the first window stays a FAIL."""
    windows = [Window(10.0 + 5 * n, after="kill x", again=n > 0) for n in range(len(words))]
    judged = [
        (window, Verdict(Word(word), "least_conn", "", ""))
        for window, word in zip(windows, words, strict=True)
    ]
    other = (Window(50.0, after="cut y"), Verdict(Word.PASS, "least_conn", "", ""))

    first, second = recoveries_of([*judged, other])

    assert (first.step, first.verdict.word, first.later) == ("kill x", *expected)
    assert (second.step, second.later) == ("cut y", 0.0)


def test_a_verify_run_folder_is_judged_again(tmp_path: Path) -> None:
    """Its log already has server names; the stub backends' counts agree."""
    claim = "upstream mine { zone z 64k; server 10.0.0.1:8000; server 10.0.0.2:8000; }\n"
    journal = "".join(entry(n, ADDRESS[took(n)]) for n in range(40)).encode()
    notes = {"fresh": True, "upstream": "mine"}
    names = {address: address for address in ADDRESS.values()}
    mine = evidence(kind="verify", claim=claim, journal=journal, notes=notes, addresses=names)

    run = outcome(tmp_path, mine)

    assert str(run.split) == "10.0.0.1: 20, 10.0.0.2: 20"
    assert run.counts.agree
    assert run.verdict.word != "FAIL"


@pytest.mark.parametrize(
    ("kept", "wrong"),
    [
        (evidence(kind="load", timeline=None), "timeline.json is missing"),
        (
            evidence(kind="load", scenario={"targets": 5}),
            "scenario.json .* targets: expected `object`",
        ),
        (evidence(kind="soak", notes={"seed": "x"}), "run.json .* seed: expected `int`"),
        (
            evidence(kind="load", timeline=timeline(windows=[Window(BEGAN, claim="../../x")])),
            'timeline.json names the claim "../../x"',
        ),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_file_and_field(
    tmp_path: Path, kept: Evidence, wrong: str
) -> None:
    """The error names file and field; there is no traceback."""
    with pytest.raises(UsageError, match=wrong):
        outcome(tmp_path, kept)


def test_keys_are_not_compared_once_the_upstream_has_changed() -> None:
    """The client computed them by the config that nginx had at first."""
    sent = evidence(1, records=(record(0, BACKENDS[0], key="e"),))

    assert keys_as_sent(sent) == {"id-0": b"e"}
    assert keys_as_sent(replace(sent, claims={"upstream-2.conf": CLAIM})) == {}


def test_a_folder_of_several_runs_names_those_that_can_be_judged(tmp_path: Path) -> None:
    """A comparison lies beside its live runs; simulated runs have no logs."""
    comparison, runs = tmp_path / "compare", tmp_path / "runs"
    comparison.mkdir()
    lines = [Run("chat", "least_conn", n, {}, folder=f"run-{n}") for n in range(7)]
    (comparison / RUNS).write_text("".join(f"{json.dumps(asdict(run))}\n" for run in lines))
    folder.write(evidence(), runs / "20261127-live")
    folder.write(evidence(kind="simulated"), runs / "20261127-other")

    with pytest.raises(
        UsageError, match=r"(?s)comparison of 7 .* run-0, .* run-4, or one of 2 more"
    ):
        judge(comparison)
    with pytest.raises(UsageError, match=r"it contains 2\ntry:   lab judge \S*/20261127-live$"):
        judge(runs)


def test_a_simulated_comparison_has_nothing_to_judge(tmp_path: Path) -> None:
    """The error names the command that shows its figures."""
    (tmp_path / RUNS).write_text(json.dumps(asdict(Run("chat", "least_conn", 1, {}))))

    with pytest.raises(UsageError, match=r"comparison of 1 .*\ntry:   lab report .* simulated"):
        judge(tmp_path)
