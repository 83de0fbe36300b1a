"""Servers that fail: an nginx that bans, forgets or retries otherwise than configured fails."""

from dataclasses import replace
from typing import Any

import pytest

from nginx_llm_lab.verdict import Verdict, judge
from tests.verdict.failing import Truth, claim_of, serve

EQUAL, UNEQUAL = (1, 1, 1), (3, 2, 1)
LONG = ((0, 10.0, 40.0),)
OVERLAPPING = ((0, 5.0, 20.0), (1, 15.0, 35.0))
SHORT = tuple((0, float(at), at + 0.7) for at in range(3, 60, 2))
SINGLE = ((0, 5.0, 9.0), *((0, float(at), at + 0.9) for at in (20, 30, 40)))


def judged(truth: Truth, max_fails: int, fail_timeout: int, seed: int = 1) -> Verdict:
    """The verdict on a simulated nginx."""
    claim = claim_of(truth, max_fails=max_fails, fail_timeout=fail_timeout)
    addresses = {server.name: (f"10.0.0.{n}:1",) for n, server in enumerate(claim.servers)}
    return judge(claim, serve(truth, seed=seed), sequential=True, addresses=addresses)


@pytest.mark.parametrize(("weights", "outages"), [(UNEQUAL, OVERLAPPING), (EQUAL, SHORT)])
@pytest.mark.parametrize(("max_fails", "fail_timeout"), [(1, 2), (2, 10), (3, 5), (0, 5)])
def test_a_right_nginx_passes_while_servers_fail(
    weights: tuple[int, ...],
    max_fails: int,
    fail_timeout: int,
    outages: tuple[tuple[int, float, float], ...],
) -> None:
    """Bans, retries and lowered weights as configured."""
    truth = Truth(weights, outages, max_fails, max_fails, fail_timeout)

    verdict = judged(truth, max_fails, fail_timeout)

    assert verdict.word == "PASS", verdict


def test_a_right_nginx_passes_with_a_backup() -> None:
    """It serves while both primary servers are banned."""
    truth = Truth(EQUAL, ((0, 5, 20), (1, 8, 20)), 3, 3, backup=2)

    assert judged(truth, 3, 5).word == "PASS"


@pytest.mark.parametrize(
    ("max_fails", "outages", "wrong"),
    [
        (1, LONG, {"ban": 10}),
        (1, LONG, {"ban": 6}),
        (1, LONG, {"ban": 3}),
        (1, LONG, {"bans_at": 0}),
        (3, LONG, {"bans_at": 2}),
        (3, LONG, {"bans_at": 1}),
        (3, LONG, {"bans_at": 4}),
        (1, LONG, {"keeps_weight": True}),
        (2, SINGLE, {"never_forgets": True}),
        (3, SHORT, {"always_forgets": True}),
    ],
)
def test_an_nginx_that_bans_otherwise_fails(
    max_fails: int,
    outages: tuple[tuple[int, float, float], ...],
    wrong: dict[str, Any],
) -> None:
    """fail_timeout is 5 s."""
    right = Truth(UNEQUAL, outages, max_fails, max_fails)

    assert judged(replace(right, **wrong), max_fails, 5).word == "FAIL"


def test_a_weight_that_recovers_at_once_fails() -> None:
    """It rises by one at each pick; of weights of 1 the two are the same."""
    wrong = Truth(UNEQUAL, LONG, recovers_at_once=True)

    assert judged(wrong, 1, 5).word == "FAIL"


def test_a_backup_that_serves_after_two_of_three_failures_fails() -> None:
    """Both primary servers fail three times before they are banned."""
    wrong = Truth(EQUAL, ((0, 5, 20), (1, 5, 20)), 3, bans_at=2, backup=2)

    assert judged(wrong, 3, 5).word == "FAIL"
