"""Random draws must match their probabilities in every group of picks."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from nginx_llm_lab.evidence.trace import PICK, RELEASE, Step
from nginx_llm_lab.verdict.chance.bounds import Bounds
from nginx_llm_lab.verdict.chance.groups import loads_of, off_odds

NAMES = ("a", "b", "c")


def alike(seen: Sequence[int], *chances: float) -> Bounds:
    """Picks with equal probabilities."""
    rows = np.tile([*chances, 0.0], (len(seen), 1))
    return Bounds(np.array(seen), rows, rows)


def drawn(number: int, draw: Callable[[random.Random, int, int], int], seed: int = 1) -> list[int]:
    """Picks by a rule that knows the pick before and the number of the pick."""
    rng, seen = random.Random(seed), [0]
    for at in range(number):
        seen.append(draw(rng, seen[-1], at))
    return seen[1:]


def fair(rng: random.Random, _before: int, _at: int) -> int:
    """A draw as it is claimed."""
    return rng.randrange(3)


def never_again(rng: random.Random, before: int, _at: int) -> int:
    """Not the same server twice in a row."""
    return rng.choice([n for n in range(3) if n != before])


def late(rng: random.Random, _before: int, at: int) -> int:
    """The third server gets nothing at first, and later as much more."""
    return rng.randrange(2) if at < 300 else rng.choices(range(3), (4, 4, 6))[0]


def in_circles(rng: random.Random, before: int, _at: int) -> int:
    """Mostly the server behind the one before, so that pairs come too often."""
    return (before + 1) % 3 if rng.random() < 0.4 else rng.randrange(3)


def test_fair_draws_match_their_probabilities() -> None:
    """No group deviates in a hundred runs."""
    for seed in range(100):
        assert off_odds(alike(drawn(600, fair, seed), 1 / 3, 1 / 3, 1 / 3), NAMES) == ""


def test_a_rare_server_may_come_up_a_few_times_more() -> None:
    """Expected 3 times, observed 14 times: chance does that more often than once in 10⁹."""
    seen = [1] * 14 + [0] * 2986

    assert off_odds(alike(seen[::-1], 0.999, 0.001), NAMES[:2]).startswith("a in part 5 of 5")
    spread = [int(at % 210 == 5) for at in range(3000)]
    assert off_odds(alike(spread, 0.999, 0.001), NAMES[:2]) == ""


@pytest.mark.parametrize(
    ("draw", "group"),
    [
        (never_again, "the same server again: 0, expected 500"),
        (late, "c in part 1 of 5 of the run: 0, expected 100"),
        (in_circles, "the same server again: "),
    ],
)
def test_dependent_draws_are_detected(
    draw: Callable[[random.Random, int, int], int], group: str
) -> None:
    """Draws depend on the previous draw or on the time, while the total counts are right."""
    off = off_odds(alike(drawn(1_500, draw), 1 / 3, 1 / 3, 1 / 3), NAMES)

    assert off.startswith(group), off


def test_draws_that_avoid_the_busy_server_are_detected() -> None:
    """Never the server with the most requests in flight: each server's sum is a third."""
    rng = random.Random(1)
    loads = [[rng.randrange(9) for _ in NAMES] for _ in range(900)]
    seen = [rng.choice([n for n in range(3) if load[n] < max(load)] or [0]) for load in loads]

    off = off_odds(alike(seen, 1 / 3, 1 / 3, 1 / 3), NAMES, np.array(loads))

    assert off.startswith("the server with the most requests in flight: 0, expected ")


def test_what_is_not_known_is_not_counted() -> None:
    """Unknown probabilities are left out."""
    seen = np.zeros(900, dtype=int)
    open_odds = Bounds(seen, np.zeros((900, 4)), np.ones((900, 4)))

    assert off_odds(open_odds, NAMES) == ""


def test_loads_are_those_before_each_pick() -> None:
    """Two picks of a, one release, a pick of b, and nobody."""
    kinds = ((PICK, "a"), (PICK, "a"), (RELEASE, "a"), (PICK, "b"), (PICK, "llm"))
    steps = [Step(str(n), 0, kind, False, server) for n, (kind, server) in enumerate(kinds)]

    assert loads_of(steps, {"a": 0, "b": 1}).tolist() == [[0, 0], [1, 0], [1, 0], [1, 1]]
