"""A draw by weight."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, predict


def odds(upstream: Upstream, *arrivals: Arrival) -> dict[str, float | None]:
    """The candidates of the last request."""
    return dict(list(predict(upstream, arrivals or (Arrival(),)))[-1].candidates)


def test_the_odds_are_the_weights():
    """3 to 1 is 75 % and 25 %."""
    assert odds(Upstream((Server("a", 3), Server("b")), "random")) == {"a": 0.75, "b": 0.25}


def test_the_likeliest_server_stands_for_the_draw():
    """The first on a tie; so a prediction is the same every time."""
    picks = predict(Upstream((Server("a"), Server("b")), "random"), [Arrival()] * 3)

    assert [pick.server for pick in picks] == ["a", "a", "a"]


def test_a_down_server_is_drawn_again():
    """What would fall to it falls to the others, but for 21 misses in a row."""
    chances = odds(Upstream((Server("a"), Server("b"), Server("c", down=True)), "random"))

    assert chances == {
        "a": pytest.approx(0.5, abs=1e-9),
        "b": pytest.approx(0.5, abs=1e-9),
    }


def test_a_lone_server_is_certain():
    """No draw, no candidates."""
    assert odds(Upstream((Server("a"),), "random")) == {}


def simulated(weights: list[int], up: set[int], rng: random.Random) -> int:
    """One draw as nginx makes it; the 21st miss takes the first turn of round robin."""
    for _ in range(21):
        server = rng.choices(range(len(weights)), weights)[0]
        if server in up:
            return server
    return max(sorted(up), key=lambda n: weights[n])


@settings(max_examples=10)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 99))
def test_many_draws_come_near_the_odds(weights: list[int], seed: int) -> None:
    """The last server is down; 4,000 draws by hand stay within 5 standard deviations."""
    up, rng = set(range(len(weights) - 1)), random.Random(seed)
    servers = tuple(Server(str(n), w, down=n not in up) for n, w in enumerate(weights))
    chances = odds(Upstream(servers, "random")) or {"0": 1.0}

    counts = Counter(str(simulated(weights, up, rng)) for _ in range(4000))

    for name, chance in chances.items():
        assert chance is not None
        assert abs(counts[name] - 4000 * chance) <= 5 * (4000 * chance * (1 - chance)) ** 0.5 + 1
