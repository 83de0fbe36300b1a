"""The fewest open requests per weight."""

from fractions import Fraction
from functools import partial
from itertools import repeat

from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.oracle import Arrival, predict
from tests.oracle.strategies import weighted

upstream_of = partial(weighted, "least_conn")


def test_an_idle_group_takes_turns_as_round_robin_does():
    """No server has requests in flight, so weights 3, 2, 1 give a b a c b a."""
    picks = predict(upstream_of(3, 2, 1), repeat(Arrival(), 6))

    assert "".join(str(pick.server) for pick in picks) == "abacba"


def test_the_server_with_the_fewest_open_requests_is_picked():
    """a and b hold long requests; the third and the fourth go to c as it is free again."""
    durations = [(0, 9), (0, 9), (0, 1), (2, 1)]

    picks = list(predict(upstream_of(1, 1, 1), [Arrival(t=t, duration=d) for t, d in durations]))

    assert [pick.server for pick in picks] == ["a", "b", "c", "c"]
    assert picks[3].candidates == {}


def test_tied_servers_are_the_candidates():
    """At the second request b and c are free."""
    first, second = predict(upstream_of(1, 1, 1), repeat(Arrival(duration=1), 2))

    assert first.candidates == {"a": None, "b": None, "c": None}
    assert second.candidates == {"b": None, "c": None}


def test_a_pick_without_a_tie_moves_no_turn():
    """The third request finds c alone; then c has its turn all the same."""
    busy = [Arrival(t=0, duration=2), Arrival(t=0, duration=2), Arrival(t=1)]

    picks = predict(upstream_of(1, 1, 1), [*busy, *(Arrival(t=5) for _ in range(3))])

    assert "".join(str(pick.server) for pick in picks) == "abccbc"


def test_a_release_at_the_very_moment_is_done_before_the_pick():
    """The first request ends at 1.0; the one that comes at 1.0 finds a free."""
    arrivals = [Arrival(t=0, duration=1), Arrival(t=0.5, duration=9), Arrival(t=1, duration=9)]

    picks = predict(upstream_of(1, 1), arrivals)

    assert [pick.server for pick in picks] == ["a", "b", "a"]


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=40),
)
def test_no_other_server_has_fewer_open_requests_per_weight(
    weights: list[int], steps: list[tuple[int, int]]
) -> None:
    """Count by hand who has what open: every pick is among the least loaded, as are candidates."""
    arrivals, now = [], 0
    for pause, duration in steps:
        now += pause
        arrivals.append(Arrival(t=now, duration=duration))
    picks = list(predict(upstream_of(*weights), arrivals))

    for number, pick in enumerate(picks):
        t = arrivals[number].t
        held = [
            other.server
            for other, arrival in zip(picks[:number], arrivals, strict=False)
            if arrival.t + (arrival.duration or 0) > t
        ]
        load = {chr(97 + n): Fraction(held.count(chr(97 + n)), w) for n, w in enumerate(weights)}
        least = {name for name in load if load[name] == min(load.values())}
        assert pick.server in least
        assert set(pick.candidates) == (least if len(least) > 1 else set())
