"""Every request of a run with faults has exactly one fate; unexplained ones are named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from nginx_llm_lab.accounts.fates import (
    FATES,
    Call,
    Fault,
    Rules,
    account,
    explain_lost_lines,
    named_by_tenure,
    of_record,
    possibly_lost_lines,
)
from nginx_llm_lab.accounts.join import Finding
from nginx_llm_lab.evidence.access_log import Hit, Unproxied
from nginx_llm_lab.evidence.journal import Entry
from nginx_llm_lab.evidence.record import Record
from nginx_llm_lab.evidence.timeline import Tenure

A, B, C = "backend-1", "backend-2", "backend-3"
RULES = Rules((A, B, C), fail_timeout=10)


def call(method: str = "GET", status: int = 200, error: str = "", **changes: Any) -> Call:
    """A request from second 100 to second 101."""
    return Call("r", method, 100.0, 101.0, status, error, **changes)


def hit(*attempts: tuple[str, int | None], unsent: tuple[str, ...] = ()) -> Hit:
    """nginx's line: each server with its status; `unsent` ones were never connected."""
    return Hit(
        upstream_addr=tuple(server for server, _ in attempts),
        upstream_status=tuple(status for _, status in attempts),
        upstream_connect_time=tuple(None if s in unsent else 0.0 for s, _ in attempts),
        status=attempts[-1][1] or 499,
        request_id="r",
        msec=101.0,
        request_time=1.0,
    )


def entry(backend: str = A, status: int = 200, fate: str = "ok") -> Entry:
    """The backend's line."""
    return Entry("r", backend, status=status, fate=fate)


def fate(
    calls: Call, hits: Any, entries: Any, *faults: Fault, rules: Rules = RULES
) -> tuple[str, str]:
    """The kind and reason of the one fate."""
    ledger = account([calls], hits, entries, faults, rules)
    (only,) = ledger.fates
    return only.kind, only.reason


def broken(kind: str, target: str = A, start: float = 99.0, end: float = 103.0) -> Fault:
    """A fault around the request."""
    return Fault(target, kind, start, end)


def test_a_request_without_errors_in_all_three_logs_is_answered_once() -> None:
    """One line each, no fault."""
    assert fate(call(), [hit((A, 200))], [entry()]) == ("answered once", "")


def test_a_refused_connection_followed_by_another_server_is_a_retry() -> None:
    """It was never sent to backend-1, so nginx may retry a POST too."""
    hits = [hit((A, 502), (B, 200), unsent=(A,))]

    request_fate = fate(call("POST"), hits, [entry(B)], broken("kill"))

    assert request_fate == ("answered after a retry", "broken off by kill of backend-1")


def test_a_request_on_a_killed_backend_counts_as_started() -> None:
    """A GET on the killed backend-1 that backend-2 answered counts as executed twice."""
    hits = [hit((A, 502), (B, 200))]

    request_fate = fate(call(), hits, [entry(B)], broken("kill"))

    assert request_fate == ("executed twice", "broken off by kill of backend-1")


def test_one_id_in_two_journals_is_executed_twice() -> None:
    """A paused backend reads the request when it resumes, long after another one answered."""
    hits = [hit((A, 504), (B, 200))]

    request_fate = fate(call(), hits, [entry(A, 0, "client_gone"), entry(B)], broken("pause"))

    assert request_fate == ("executed twice", "timeout by pause of backend-1")


def test_a_plain_error_is_not_an_execution() -> None:
    """With http_500 nginx retries; backend-1 only sent an error."""
    hits = [hit((A, 500), (B, 200))]

    request_fate = fate(call(), hits, [entry(A, 500), entry(B)], broken("error_rate"))

    assert request_fate == (
        "answered after a retry",
        "answered an error by error_rate of backend-1",
    )


@pytest.mark.parametrize(
    ("made", "hits", "entries", "kind", "why"),
    [
        (call("POST", 502), [hit((A, 502))], [], "kill", "broken off by kill of backend-1"),
        (call("POST", 504), [hit((A, 504))], [], "pause", "timeout by pause of backend-1"),
        (call(error="timeout", status=0), [hit((A, None))], [], "hang", "timeout by hang of"),
        (call(status=500), [hit((A, 500))], [entry(A, 500)], "error_rate", "answered an error by"),
        (call(error="malformed"), [hit((A, 200))], [entry()], "malformed_json", "malformed by"),
        (
            call("POST", error="truncated", stream=True),
            [hit((A, 200))],
            [entry(fate="dropped")],
            "drop",
            "broken off by drop of backend-1",
        ),
    ],
)
def test_a_failure_is_explained_by_a_fault_that_can_cause_it(
    made: Call, hits: list[Hit], entries: list[Entry], kind: str, why: str
) -> None:
    """With the fault in force the failure is explained; without it, or later, it is not."""
    explained = fate(made, hits, entries, broken(kind))
    without = fate(made, hits, entries)
    elsewhere = fate(made, hits, entries, broken(kind, B))
    later = fate(made, hits, entries, broken(kind, start=102.0))

    assert explained[0] == "failed"
    assert explained[1].startswith(why)
    assert [without[0], elsewhere[0], later[0]] == ["unexplained"] * 3


def test_a_fault_that_cannot_cause_the_failure_explains_nothing() -> None:
    """A slow backend does not explain a broken connection."""
    request_fate = fate(call("POST", 502), [hit((A, 502))], [entry(fate="failed")], broken("slow"))

    assert request_fate == (
        "unexplained",
        "broken off (502), and no fault of backend-1 explains it",
    )


@pytest.mark.parametrize(
    ("seconds", "kind"), [(0.0, "answered after a retry"), (0.001, "unexplained")]
)
def test_a_post_may_be_repeated_whose_connection_was_reset_at_once(
    seconds: float, kind: str
) -> None:
    """nginx logs the connect time, 0.000, before it sees that the connection was reset."""
    reset = structs.replace(hit((A, 502), (B, 200)), upstream_response_time=(seconds, 0.1))

    assert fate(call("POST"), [reset], [entry(B)], broken("kill"))[0] == kind


def test_a_repeated_post_violates_the_retry_rules() -> None:
    """Only `non_idempotent` allows it; then it is counted as executed twice."""
    hits, entries = [hit((A, 502), (B, 200))], [entry(B)]
    allowed = Rules(RULES.servers, non_idempotent=True)

    forbidden = fate(call("POST"), hits, entries, broken("kill"))
    counted = fate(call("POST"), hits, entries, broken("kill"), rules=allowed)

    assert forbidden == (
        "unexplained",
        "retried after it was sent, although non_idempotent is off",
    )
    assert counted[0] == "executed twice"


def test_no_live_upstreams_needs_a_fault_of_every_server() -> None:
    """A ban outlasts its fault by fail_timeout; a server without a fault makes it unexplained."""
    made, hits = call(status=502), [hit(("llm", 502), unsent=("llm",))]
    past = [broken("kill", backend, 80.0, 95.0) for backend in (A, B, C)]

    all_out = fate(made, hits, [], *past)
    one_well = fate(made, hits, [], *past[:2])
    long_ago = fate(made, hits, [], *past, rules=Rules(RULES.servers, fail_timeout=1))

    assert all_out == (
        "failed",
        "no live upstreams: kill of backend-1, kill of backend-2, kill of backend-3",
    )
    assert one_well[0] == long_ago[0] == "unexplained"


def open_at(server: str, count: int) -> list[Hit]:
    """nginx's lines of requests that a server had from second 100.5 to second 102."""
    return [
        Hit((server,), 200, 102.0, 1.5, f"{server}-{number}", upstream_response_time=(1.5,))
        for number in range(count)
    ]


def no_live(servers: dict[str, int], *faults: Fault, rules: Rules) -> tuple[str, str]:
    """The fate of a 502 "no live upstreams" at second 101, while the servers have requests."""
    lines = [*(line for server, count in servers.items() for line in open_at(server, count))]
    refused = hit(("llm", 502), unsent=("llm",))
    ledger = account([call("POST", 502)], [refused, *lines], [], faults, rules)
    (fate,) = (fate for fate in ledger.fates if fate.id == "r")
    return fate.kind, fate.reason


def test_no_live_upstreams_at_max_conns_is_a_refusal_by_that_limit() -> None:
    """Every server had its max_conns; with one request fewer at one of them it is unexplained."""
    rules = Rules((A, B, C), max_conns={A: 2, B: 1, C: 2})

    full = no_live({A: 2, B: 1, C: 3}, rules=rules)
    room_at_c = no_live({A: 2, B: 1, C: 1}, rules=rules)

    assert full == (
        "refused by a limit",
        "no live upstreams: max_conns=2 of backend-1, max_conns=1 of backend-2, "
        "max_conns=2 of backend-3",
    )
    assert room_at_c[0] == "unexplained"


def test_foreign_requests_count_towards_max_conns() -> None:
    """Another client's requests filled every server; only the refused request has a fate."""
    rules = Rules((A, B), max_conns={A: 2, B: 1})
    refused, foreign = hit(("llm", 502), unsent=("llm",)), [*open_at(A, 2), *open_at(B, 1)]

    ledger = account([call("POST", 502)], [refused], [], (), rules, foreign=foreign)

    assert [fate.kind for fate in ledger.fates] == ["refused by a limit"]


def test_max_conns_of_the_remaining_servers_is_a_refusal() -> None:
    """One server is killed, one is down in the config, the third has its max_conns."""
    rules = Rules((A, B, C), max_conns={B: 1}, down={C})

    kind, why = no_live({B: 1}, broken("kill"), rules=rules)
    without_load = no_live({}, broken("kill"), rules=rules)
    all_out = no_live({}, broken("kill"), broken("kill", B), rules=rules)

    assert kind == "refused by a limit"
    assert why.endswith(
        "kill of backend-1, max_conns=1 of backend-2, backend-3 is down in the config"
    )
    assert (without_load[0], all_out[0]) == ("unexplained", "failed")


def test_a_fault_of_all_backends_affects_each_backend_but_not_nginx() -> None:
    """`lab fault all kill` explains a failure at backend-1, not one at nginx."""
    at_a = fate(call("POST", 502), [hit((A, 502))], [], broken("kill", "all"))
    at_nginx = fate(call(status=0, error="reset"), [], [], broken("kill", "all"))

    assert at_a == ("failed", "broken off by kill of all")
    assert at_nginx[0] == "unexplained"


def test_a_killed_nginx_loses_its_own_log_line() -> None:
    """The client was disconnected and the backend did the work, but nginx logged nothing."""
    made = call(status=0, error="reset")

    request_fate = fate(made, [], [entry(fate="client_gone")], broken("kill", "nginx"))

    assert request_fate == ("failed", "broken off by kill of nginx")


@pytest.mark.parametrize(
    ("calls", "hits", "entries", "why"),
    [
        ([call(), call()], [hit((A, 200))], [entry()], "sent twice"),
        ([], [hit((A, 200))], [entry()], "no client sent it"),
        ([call()], [], [entry()], "answered, but nginx did not log it"),
        ([call()], [hit((A, 200))] * 2, [entry()], "nginx logged it twice"),
        ([call()], [hit((A, 200))], [], "backend-1 did not log it"),
        ([call()], [hit((A, 200))], [entry(), entry(B)], "nginx never sent it to backend-2"),
        ([call(status=201)], [hit((A, 200))], [entry()], "the client got 201, nginx sent 200"),
    ],
)
def test_logs_that_contradict_each_other_are_unexplained(
    calls: list[Call], hits: list[Hit], entries: list[Entry], why: str
) -> None:
    """No fault on the timeline explains it."""
    ledger = account(calls, hits, entries, [broken("pause")], RULES)

    assert [(fate.kind, fate.reason) for fate in ledger.fates] == [("unexplained", why)]
    assert not ledger.holds


def test_a_ledger_is_printed_by_sort_and_fate() -> None:
    """Each sort with its fates, then the reasons of what failed."""
    calls = [
        Call("1", "GET", 1, 2, 200),
        Call("2", "POST", 1, 2, 502),
        Call("3", "POST", 1, 2, 200, stream=True),
    ]
    hits = [
        Hit((A,), 200, 2, 1, "1", upstream_status=(200,), upstream_connect_time=(0.0,)),
        Hit((B,), 502, 2, 1, "2", upstream_status=(502,), upstream_connect_time=(0.0,)),
        Hit((C,), 200, 2, 1, "3", upstream_status=(200,), upstream_connect_time=(0.0,)),
    ]
    entries = [Entry("1", A, status=200, fate="ok"), Entry("3", C, status=200, fate="ok")]

    ledger = account(calls, hits, entries, [Fault(B, "kill", 0, 3)], RULES)

    assert str(ledger).splitlines() == [
        "PASS  3 requests",
        "  GET     1 answered once",
        "  POST    1 failed",
        "  stream  1 answered once",
        "  1 times POST failed: broken off by kill of backend-2",
    ]


def test_an_address_is_named_after_the_backend_that_had_it_then() -> None:
    """At second 50 backend-3 gets the address of backend-2, which gets another one."""
    tenures = [
        *(Tenure("x:1", A, 0.0), Tenure("y:1", B, 0.0)),
        *(Tenure("y:1", C, 50.0), Tenure("z:1", B, 50.5)),
    ]
    hits: list[Hit | Unproxied] = [
        Hit(("y:1",), msec=40.0),
        Hit(("y:1", "z:1"), msec=60.0),
        # begun on backend-2, which dies; the next attempt is connected when backend-3 is there
        Hit(
            ("y:1", "y:1"),
            msec=52.0,
            request_time=4.0,
            upstream_connect_time=(0.0, 1.5),
            upstream_response_time=(1.0, 3.0),
        ),
        Unproxied(400),
    ]

    named = list(named_by_tenure(hits, tenures))

    assert [h.upstream_addr for h in named if isinstance(h, Hit)] == [(B,), (C, B), (B, C)]
    assert list(named_by_tenure(hits, [])) == hits


def test_a_kill_may_lose_the_log_lines_of_requests_in_flight() -> None:
    """Waiting for a log expects only the lines of the other requests."""
    calls = [Call(str(n), "GET", float(n), n + 0.5, status=200) for n in (100, 110, 120)]

    assert (
        possibly_lost_lines(calls, [broken("kill", start=109, end=111), broken("cut", "nginx")])
        == 1
    )
    assert possibly_lost_lines(calls, []) == 0


def test_a_finding_is_explained_by_a_kill_during_its_request() -> None:
    """Not by another fault or at another time; an existing reason stays."""
    calls = [Call("1", "GET", 100.0, 101.0, 200), Call("2", "GET", 300.0, 301.0, 200)]
    findings = [
        Finding("not at nginx", "1", "no line"),
        Finding("not at nginx", "2", "no line"),
        Finding("tokens lost", "1", "3 tokens", reason="truncated"),
        Finding("nginx only", "9", "no client sent it"),
    ]

    remaining = explain_lost_lines(
        findings, calls, [broken("kill", "nginx"), broken("pause", start=299, end=302)]
    )

    assert [one.reason for one in remaining] == ["kill of nginx", "", "truncated", ""]


def test_a_removed_server_is_unavailable_and_explains_no_failure() -> None:
    """With both others killed none is live; a failure on the removed one is unexplained."""
    gone = Fault(C, "removal", 50.0)
    hits = [hit((A, 502), (B, 502), ("llm", 502), unsent=(A, B, "llm"))]

    request_fate = fate(call(status=502), hits, [], broken("kill"), broken("kill", B), gone)
    without_kill = fate(call(status=502), [hit((C, 502))], [entry(C, 502, "failed")], gone)

    assert request_fate[0] == "failed"
    assert "removal of backend-3" in request_fate[1]
    assert without_kill[0] == "unexplained"


def test_an_error_that_no_fault_explains_is_named_as_the_backend_named_it() -> None:
    """Its code, such as that of a prompt that is too long."""
    refused = of_record(
        Record(
            1, "r", 5.0, status=400, error="http_4xx", detail='400 {"error":{"code":"too_long"}}'
        )
    )

    assert fate(refused, [hit((A, 400))], [entry(A, 400)]) == (
        "unexplained",
        "answered an error (400 too_long), and no fault of backend-1 explains it",
    )


def test_a_record_of_the_workload_is_a_call() -> None:
    """An http_5xx is kept as a status, not as an error; an unsent request has no duration."""
    answered = of_record(Record(1, "r", 5.0, sent=5.5, end=6.0, status=502, error="http_5xx"))
    unsent = of_record(Record(1, "r", 5.0, error="unsent", stream=False))

    assert answered == Call("r", "POST", 5.5, 6.0, 502, "", stream=True)
    assert unsent == Call("r", "POST", 5.0, 5.0, 0, "unsent")


servers = st.sampled_from([A, B, C, "llm"])
statuses = st.sampled_from([200, 500, 502, 504, None])


@given(
    calls=st.lists(
        st.builds(
            Call,
            st.sampled_from("abc"),
            st.sampled_from(["GET", "POST"]),
            st.just(100.0),
            st.just(101.0),
            st.sampled_from([0, 200, 404, 500, 502, 504]),
            st.sampled_from(["", "timeout", "reset", "truncated", "malformed"]),
            st.booleans(),
        ),
        max_size=4,
    ),
    tried=st.lists(
        st.tuples(st.sampled_from("abcd"), st.lists(st.tuples(servers, statuses), min_size=1)),
        max_size=4,
    ),
    entries=st.lists(st.builds(Entry, st.sampled_from("abcd"), servers), max_size=4),
    faults=st.lists(
        st.builds(
            Fault,
            st.sampled_from([A, B, "all", "nginx"]),
            st.sampled_from(["kill", "pause", "drop", "reload", "never heard of"]),
            st.floats(90, 110),
            st.floats(90, 120),
        ),
        max_size=3,
    ),
)
def test_every_id_has_exactly_one_fate_for_any_logs(
    calls: list[Call],
    tried: list[tuple[str, list[tuple[str, int | None]]]],
    entries: list[Entry],
    faults: list[Fault],
) -> None:
    """Nothing is lost, nothing is counted twice, no log makes it raise."""
    hits = [
        Hit(
            tuple(server for server, _ in attempts),
            request_id=name,
            upstream_status=tuple(status for _, status in attempts),
        )
        for name, attempts in tried
    ]

    ledger = account(calls, hits, entries, faults, RULES)

    ids = {c.id for c in calls} | {h.request_id for h in hits} | {e.id for e in entries}
    assert sorted(fate.id for fate in ledger.fates) == sorted(ids)
    assert {fate.kind for fate in ledger.fates} <= set(FATES)
    assert ledger.holds == (not ledger.unexplained)


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_queue_refuses_by_the_limit_of_its_backend(status: int) -> None:
    """The backend's journal says why it answered so; no fault is needed, and the run holds."""
    hits = [hit((A, status))]

    request_fate = fate(call("POST", status), hits, [entry(A, status, "refused")])

    assert request_fate == ("refused by a limit", "queue limit of backend-1")


def test_an_error_without_a_full_queue_is_no_refusal_by_a_limit() -> None:
    """A backend that answers 503 for another reason is unexplained."""
    kind, why = fate(call("POST", 503), [hit((A, 503))], [entry(A, 503)])

    assert kind == "unexplained"
    assert "no fault of backend-1 explains it" in why


def test_a_full_queue_and_the_next_server_is_a_retry() -> None:
    """With http_503 nginx goes on; the full backend did not begin the request."""
    hits = [hit((A, 503), (B, 200))]

    request_fate = fate(call(), hits, [entry(A, 503, "refused"), entry(B)])

    assert request_fate == ("answered after a retry", "queue limit of backend-1")


def test_nginxs_limit_on_large_bodies_is_named() -> None:
    """nginx answers 503 by itself, and no backend sees the request."""
    refused = Unproxied(status=503, request_id="r")

    request_fate = fate(call("POST", 503), [refused], [])

    assert request_fate == ("refused by a limit", "nginx's limit on large request bodies")
