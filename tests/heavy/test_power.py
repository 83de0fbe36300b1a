"""What verdicts are worth: simulated nginxes, right and wrong, against every claim."""

import os

import pytest

from nginx_llm_lab.verdict import power
from nginx_llm_lab.verdict.power import NAMES
from nginx_llm_lab.word import Word

FLEETS = ((1, 1), (1, 1, 1), (3, 2, 1), (4, 3, 2, 1), (1, 1, 1, 1, 1))
SEEDS = int(os.environ.get("LAB_POWER_SEEDS", "2"))  # of each fleet; 20 take an hour


@pytest.mark.parametrize("method", NAMES)
def test_a_right_nginx_passes(method: str) -> None:
    """No FAIL on fleets of 2 to 5 servers, and 99 of 100 runs are a PASS."""
    words = [
        verdict.word
        for weights in FLEETS
        for verdict in power.runs(
            method,
            power.claim_of(method, power.truth_of(method, weights)),
            power.truth_of(method, weights),
            range(SEEDS),
        )
    ]

    assert Word.FAIL not in words
    assert words.count(Word.PASS) >= 0.99 * len(words)


@pytest.mark.parametrize("method", NAMES)
def test_a_wrong_nginx_never_passes(method: str) -> None:
    """Other methods, weights, keys, orders, zones, shares, limits: each is seen."""
    passed = [
        f"{cell.claim} claimed, {cell.truth} true: {dict(cell.words)}"
        for weights in ((1, 1, 1), (3, 2, 1))
        for cell in power.matrix(method, weights, max(1, SEEDS // 2))
        if (cell.words["PASS"] if not cell.right else cell.words["FAIL"])
    ]

    assert passed == []
