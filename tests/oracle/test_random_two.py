"""Two draws, the less loaded wins, the second on a tie."""

import random
from collections import Counter
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, predict
from nginx_llm_lab.oracle.base import group_of
from nginx_llm_lab.oracle.random_two import pair_odds, winner, winner_odds
from tests.oracle.strategies import weighted

upstream_of = partial(weighted, "random_two")


def odds(upstream: Upstream, *arrivals: Arrival) -> dict[str, float]:
    """The candidates of the last request, in percent."""
    candidates = list(predict(upstream, arrivals or (Arrival(),)))[-1].candidates
    rounded = {name: round(100 * (chance or 0), 1) for name, chance in candidates.items()}
    return {name: chance for name, chance in rounded.items() if chance}


def test_the_light_server_of_two_idle_ones_gets_the_most():
    """Weights 3 and 1: the first draw is mostly the heavy one, and the second wins the tie.

    Only a heavy server drawn 20 times more is left to round robin.
    """
    assert odds(upstream_of(3, 1)) == {
        "a": pytest.approx(25, abs=0.3),
        "b": pytest.approx(75, abs=0.3),
    }


def test_three_idle_servers_share_by_who_is_drawn_second():
    """Weights 5, 3, 1 are 34.7, 45.8 and 19.4 %."""
    assert odds(upstream_of(5, 3, 1)) == {"a": 34.7, "b": 45.8, "c": 19.4}


def test_a_very_light_server_is_mostly_not_found():
    """Weights 99 and 1: in 20 tries 18 % find the light one; the rest is round robin's turn."""
    assert odds(upstream_of(99, 1)) == {"a": 82.0, "b": 18.0}


def test_the_busiest_of_three_cannot_be_picked():
    """The first request is open at a: b and c share the second."""
    assert odds(upstream_of(1, 1, 1), Arrival(duration=9), Arrival()) == {"b": 50.0, "c": 50.0}


def test_one_fit_server_alone_is_left_to_round_robin():
    """There is no second draw that could end."""
    upstream = Upstream((Server("a"), Server("b", down=True)), "random_two")

    (pick,) = predict(upstream, [Arrival()])

    assert pick.server == "a"
    assert pick.candidates == {}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=2, max_size=30))
def test_many_peers_at_once_have_the_odds_of_pair_by_pair(lines: list[tuple[int, int]]) -> None:
    """Any weights and loads: the sums are equal to the last bit."""
    group = group_of(upstream_of(*(weight for weight, _ in lines)), {})
    for peer, (_, conns) in zip(group.peers, lines, strict=True):
        peer.conns = conns
    one_by_one = dict.fromkeys(group.peers, 0.0)
    for (first, second), chance in pair_odds(group, group.peers).items():
        one_by_one[winner(first, second)] += chance

    assert winner_odds(group, group.peers) == one_by_one


def simulated(weights: list[int], load: list[int], up: set[int], rng: random.Random) -> int | None:
    """Two draws as nginx makes them; None where round robin takes over."""
    tries, first = 0, None
    while True:
        server = rng.choices(range(len(weights)), weights)[0]
        if server in up and server != first:
            if first is not None:
                worse = load[server] * weights[first] > load[first] * weights[server]
                return first if worse else server
            first = server
        tries += 1
        if tries > 20:
            return None


@settings(max_examples=8)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=4), st.integers(0, 99))
def test_many_draws_come_near_the_odds(weights: list[int], seed: int) -> None:
    """A request is open at one server; 4,000 draws by hand stay within 5 standard deviations."""
    upstream, rng = upstream_of(*weights), random.Random(seed)
    first = next(predict(upstream, [Arrival(duration=9)])).server
    load = [int(chr(97 + n) == first) for n in range(len(weights))]
    picks = list(predict(upstream, [Arrival(duration=9), Arrival()]))

    drawn = [simulated(weights, load, set(range(len(weights))), rng) for _ in range(4000)]
    counts = Counter(chr(97 + n) for n in drawn if n is not None)
    for name, chance in picks[1].candidates.items():
        assert chance is not None
        spread = 5 * (4000 * chance * (1 - chance)) ** 0.5
        assert abs(counts[name] - 4000 * chance) <= spread + drawn.count(None) + 1


@pytest.mark.parametrize("method", ["random", "random_two"])
def test_draws_come_out_as_their_odds_say(method):
    """20,000 seeded draws among weights 5, 3, 1 and a down server: each within 1.5 points."""
    servers = (Server("a", 5), Server("b", 3), Server("c", 1), Server("d", 2, down=True))
    upstream = Upstream(servers, method)
    arrivals = [Arrival()] * 20_000

    draws = Counter(
        pick.server for pick in predict(upstream, arrivals, draw=random.Random(3).randrange)
    )

    candidates = next(predict(upstream, arrivals)).candidates
    assert set(draws) == set(candidates)
    for name, chance in candidates.items():
        assert draws[name] / 20_000 == pytest.approx(chance, abs=0.015)


def test_of_two_draws_the_less_loaded_server_wins():
    """With a request in flight on each drawn server in turn, no server gets two before others."""
    upstream = upstream_of(1, 1)
    arrivals = [Arrival(duration=10.0) for _ in range(4)]

    picks = [pick.server for pick in predict(upstream, arrivals, draw=random.Random(1).randrange)]

    assert Counter(picks) == {"a": 2, "b": 2}
