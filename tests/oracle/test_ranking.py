"""A large group, kept in order, leads to the same picks as a scan of it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Upstream
from nginx_llm_lab.oracle import Arrival, Pick, balancer, predict, ranking
from tests.oracle.strategies import server_lists

RULES = NextUpstream(frozenset({"error", "timeout", "http_500", "http_404"}))
servers = server_lists("abcdefgh", weight=4, max_fails=3, sizes=(2, 8))
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0.4, 1, 3]),
        st.sampled_from([None, 0.0, 0.03, 0.7, 2.5, 9]),
        st.dictionaries(
            st.sampled_from("abcdefgh"),
            st.sampled_from(["refused", "timeout", "http_500", "http_404"]),
            max_size=4,
        ),
    ),
    max_size=60,
)


@contextmanager
def kept_from(number: int) -> Iterator[None]:
    """Have groups of this many peers ranked."""
    before, ranking.LARGE = ranking.LARGE, number
    try:
        yield
    finally:
        ranking.LARGE = before


def picks(upstream: Upstream, arrivals: list[Arrival], ranked_from: int) -> list[Pick]:
    """The prediction where groups of so many peers are ranked."""
    with kept_from(ranked_from):
        return list(predict(upstream, arrivals))


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "least_time"])
@given(servers, steps)
def test_a_ranking_gives_the_same_picks_as_a_scan(
    method: str, lines: list[Server], plan: list[tuple[float, float | None, dict[str, str]]]
) -> None:
    """Weights, bans, full servers, backups, retries: the same picks and the same candidates."""
    now, arrivals = 0.0, []
    for pause, duration, fail in plan:
        now += pause
        arrivals.append(Arrival(t=now, duration=duration, fail=fail))
    upstream = Upstream(tuple(lines), method, measure="header", next_upstream=RULES)

    assert picks(upstream, arrivals, ranked_from=2) == picks(upstream, arrivals, ranked_from=99)


def test_the_current_weights_are_those_of_nginx():
    """Weights 5, 1, 1 after the turns a a b: 1, -4 and 3, ranked as scanned."""
    with kept_from(2):
        lab = balancer(Upstream((Server("a", 5), Server("b"), Server("c"))))

    turns = [lab.arrive(Arrival()).pick for _ in range(3)]

    assert [pick.server for pick in turns if pick] == ["a", "a", "b"]
    assert [peer.current for peer in lab.peers] == [1, -4, 3]


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "least_time"])
def test_outdated_heap_entries_are_removed(method: str):
    """After 20,000 requests on 50 servers no heap has grown beyond a few entries a server."""
    rng = random.Random(1)
    upstream = Upstream(tuple(Server(f"s{n}") for n in range(50)), method, measure="header")
    lab = balancer(upstream)

    for number in range(20_000):
        lab.arrive(Arrival(t=number / 100, duration=rng.expovariate(2)))

    ranked = lab.group.ranking
    assert ranked
    entries = sum(len(pool.heap) for pool in ranked.pools.values())
    assert entries <= 2 * 50 + 17 * len(ranked.pools)
    assert len(ranked.lowest) <= 200
    assert len(ranked.alarms) <= 1000
