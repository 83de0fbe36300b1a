"""How many requests a PASS takes."""

from dataclasses import replace

import numpy as np
import pytest

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict import judge
from nginx_llm_lab.verdict.alternatives.weighing import EXCLUDED, SHARES
from nginx_llm_lab.verdict.chance.bounds import Bounds, bet, diverted
from nginx_llm_lab.verdict.needed import requests_for_pass, rows_of
from nginx_llm_lab.verdict.power import claim_of
from nginx_llm_lab.verdict.simulated import Traffic, Truth, serve


def claim(method: str, *weights: int) -> Upstream:
    """Servers a, b and so on, by their weights."""
    servers = tuple(Server("abcde"[n], weight) for n, weight in enumerate(weights))
    return Upstream(servers, method, "$request_uri" if method == "hash" else "")


def test_draws_need_more_requests_than_turns() -> None:
    """A draw of a tenth too many looks like chance for longer."""
    turns, draws = (requests_for_pass(claim(name, 1, 1, 1)) for name in ("hash", "random"))

    assert turns < 500 < 2_000 < draws


def test_the_usual_number_is_the_least() -> None:
    """One live server, or turns that a few hundred requests show."""
    alone = Upstream((Server("a"), Server("b", down=True)), "random")

    assert requests_for_pass(alone, 700) == 700
    assert requests_for_pass(claim("round_robin", 1, 1), 9_000) == 9_000


@pytest.mark.parametrize("weights", [(1, 1), (1, 1, 1), (3, 2, 1)])
def test_that_many_turns_exclude_every_share(weights: tuple[int, ...]) -> None:
    """A tenth taken to any server; a fifth of the requests would not do."""
    needed = requests_for_pass(claim("round_robin", *weights), 1)

    def weakest(number: int) -> float:
        seen = np.array([n for n, weight in enumerate(weights) for _ in range(weight)])
        seen = np.resize(seen, number)
        rows = np.eye(len(weights) + 1)[seen]
        exact = Bounds(seen, rows, rows)
        return min(
            bet(exact, diverted(exact, column, share))
            for column in range(len(weights))
            for share in SHARES
        )

    assert weakest(needed) >= EXCLUDED > weakest(needed // 5)


def test_two_draws_are_looked_at_in_every_order_of_load() -> None:
    """Three servers have six; the least loaded gets two thirds, the most loaded nothing."""
    rows = np.array(rows_of(claim("random_two", 1, 1, 1)))

    assert len(rows) == 6
    assert np.sort(rows, axis=1).round(3).tolist() == [[0.0, 0.333, 0.667]] * 6


def test_one_draw_has_one_row() -> None:
    """The row has the share of each weight."""
    assert np.array(rows_of(claim("random", 3, 2, 1))).round(3).tolist() == [[0.5, 0.333, 0.167]]


def test_draws_that_fit_two_claims_need_more_draws() -> None:
    """Random numbers of 4 bits modulo three servers: less concurrency would not decide."""
    fair = Truth("random", (1, 1, 1))
    claim = claim_of("random", fair)
    log = serve(replace(fair, weights=(6, 5, 5)), Traffic(1_000, 20, 5.0, 60.0), 3).hits

    verdict = judge(claim, log, sequential=False)

    assert (verdict.word, verdict.command) == ("UNSURE", "lab run random -n 2000"), verdict
