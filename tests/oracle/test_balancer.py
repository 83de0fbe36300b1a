"""Overlapping requests, and the fast path for requests without other events."""

from collections.abc import Iterator, Sequence
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Upstream
from nginx_llm_lab.oracle import ORACLES, Arrival, Pick, balancer, predict
from tests.oracle.strategies import server_lists


def by_the_long_way(upstream: Upstream, arrivals: Sequence[Arrival]) -> Iterator[Pick | None]:
    """The picks without the fast path."""
    lab = balancer(upstream)
    requests = [lab.arrive(arrival) for arrival in arrivals]
    lab.finish()
    return (request.pick for request in requests)


NAMES = ("10.0.0.1:80", "10.0.0.2:80", "b", "c", "d")
servers = server_lists(NAMES, weight=3, max_fails=2, sizes=(1, 4))
kinds = st.sampled_from(["refused", "error", "timeout", "http_500", "http_404"])
names = st.sampled_from(NAMES)
clean = st.builds(
    Arrival, st.sampled_from([b"", b"x", b"y", b"z"]), st.sampled_from(["::1", "1.2.3.4"])
)
rough = st.builds(
    Arrival,
    st.sampled_from([b"", b"x", b"y", b"z"]),
    method=st.sampled_from(["GET", "POST"]),
    duration=st.sampled_from([None, None, 0.0, 0.7]),
    fail=st.dictionaries(names, kinds, max_size=3),
    took=st.dictionaries(names, st.sampled_from([0.0, 1.5]), max_size=3),
)
streams = st.lists(
    st.tuples(st.sampled_from([0, 0, 0.5, 2]), st.one_of(clean, clean, rough)), max_size=30
)


@given(st.sampled_from(sorted(ORACLES)), servers, streams)
def test_the_fast_path_gives_the_same_picks(
    method: str, lines: list[Server], steps: list[tuple[float, Arrival]]
) -> None:
    """Any servers, any faults between quiet requests: the same picks, one by one."""
    conditions = frozenset({"error", "timeout", "http_500", "http_404"})
    upstream = Upstream(
        tuple(lines), method, measure="header", next_upstream=NextUpstream(conditions)
    )
    now, arrivals = 0.0, []
    for pause, request in steps:
        now += pause
        arrivals.append(
            Arrival(
                request.key,
                request.client_ip,
                "",
                request.method,
                now,
                request.duration,
                request.fail,
                request.took,
            )
        )

    short = [(pick.server, pick.attempts) for pick in predict(upstream, arrivals)]

    long = [(pick.server, pick.attempts) for pick in by_the_long_way(upstream, arrivals) if pick]
    assert short == long


def test_requests_overlap_while_an_attempt_lasts():
    """The first waits at a for 5 s, then retries; the second arrives meanwhile and gets b."""
    slow = Arrival(t=0, fail={"a": "timeout"}, took={"a": 5})
    upstream = Upstream(tuple(Server(name) for name in "abc"))

    first, second, third = predict(upstream, [slow, Arrival(t=1), Arrival(t=6)])

    assert (second.server, first.attempts, third.server) == ("b", ("a", "c"), "c")


def test_picks_come_in_the_order_of_the_arrivals():
    """Though the second was known before the first."""
    slow = Arrival(t=0, fail={"a": "timeout"}, took={"a": 5})

    picks = predict(Upstream((Server("a"), Server("b"))), [slow, Arrival(t=1)])

    assert [pick.attempts for pick in picks] == [("a", "b"), ("b",)]


def test_picks_stream():
    """An endless stream of arrivals gives its first pick at once."""
    assert next(predict(Upstream((Server("a"),)), repeat(Arrival()))) == Pick("a", ("a",))


def test_a_failure_is_dated_by_its_end():
    """Refused after 3 s: with fail_timeout 1 the ban lasts from t=3, not from t=0."""
    lines = (Server("a", 9, fail_timeout=1), Server("b"))
    hung = Arrival(t=0, fail={"a": "timeout"}, took={"a": 3})

    picks = list(predict(Upstream(lines), [hung, Arrival(t=4), Arrival(t=4.9)]))

    assert [pick.attempts for pick in picks] == [("a", "b"), ("b",), ("b",)]


def test_six_hundred_servers_that_all_refuse_are_all_tried():
    """However long the way, it ends: 600 attempts and no deep recursion."""
    lines = tuple(Server(f"s{n}") for n in range(600))
    failing = dict.fromkeys((line.name for line in lines), "refused")

    (pick,) = predict(Upstream(lines), [Arrival(fail=failing)])

    assert len(pick.attempts) == 600


def test_an_unknown_method_is_an_error():
    """The hint names those that there are."""
    with pytest.raises(UsageError, match='unknown method "fair"') as raised:
        list(predict(Upstream((Server("a"),), "fair"), []))

    assert "least_conn" in raised.value.hint
