"""The evidence of picks for one hypothesis against another."""

from dataclasses import replace
from math import inf, log

import numpy as np
import pytest

from nginx_llm_lab.verdict.chance.bounds import Bounds, bet, diverted, moved, same, unknown


def fixed(seen: list[int], *odds: float) -> Bounds:
    """The same known probabilities at every pick; the last column is no live upstreams."""
    rows = np.tile([*odds, 0.0], (len(seen), 1))
    return Bounds(np.array(seen), rows, rows)


def test_the_guess_is_the_middle_of_the_bounds() -> None:
    """As a distribution; where nothing is possible, all are alike."""
    low = np.array([[0.25, 0.25, 0.0], [0.0, 0.0, 0.0]])
    bounds = Bounds(np.array([0, 0]), low, low * [1, 5, 1])

    assert bounds.guess == pytest.approx(np.array([[0.25, 0.75, 0.0], [1 / 3] * 3]))


def test_each_pick_multiplies_the_odds() -> None:
    """Probability 1 against 0.5, ten times: 2 to the power of 10."""
    seen = [0] * 10

    assert bet(fixed(seen, 1.0, 0.0), fixed(seen, 0.5, 0.5)) == pytest.approx(10 * log(2))


def test_an_impossible_pick_excludes() -> None:
    """One pick of probability 0 is enough, regardless of the other picks."""
    assert bet(fixed([0, 1], 0.5, 0.5), fixed([0, 1], 1.0, 0.0)) == inf


def test_unknown_picks_are_no_evidence() -> None:
    """They do not change the odds."""
    seen = [0, 1, 0]

    assert bet(fixed(seen, 0.5, 0.5), unknown(np.array(seen), 3)) == 0.0


def test_a_doubt_limits_the_evidence_of_one_pick() -> None:
    """With a doubt of 5 % an impossible pick counts as one of 5 %, not as none."""
    doubtful = replace(fixed([0], 0.0, 1.0), doubt=0.05)

    assert bet(fixed([0], 1.0, 0.0), doubtful) == pytest.approx(log(0.95 + 0.05 / 3) - log(0.05))


def test_a_share_moves_only_requests_of_other_servers() -> None:
    """30 % taken to the second of two equal servers: half of that was there already."""
    claim = fixed([0, 1], 0.5, 0.5)

    assert moved(claim, diverted(claim, 1, 0.3)) == pytest.approx(0.15)
    assert same(claim, claim)
    assert not same(claim, diverted(claim, 1, 0.3))
