"""The reliability of verdicts: correct and faulty simulated nginxes against every claim."""

import os
from collections.abc import Iterator
from itertools import chain

import pytest

from nginx_llm_lab.nginxconf.methods import METHODS
from nginx_llm_lab.verdict import power
from nginx_llm_lab.verdict.power import Cell
from nginx_llm_lab.word import Word

FLEETS = ((1, 1), (1, 1, 1), (3, 2, 1), (4, 3, 2, 1), (1, 1, 1, 1, 1))
SEEDS = int(os.environ.get("LAB_POWER_SEEDS", "2"))  # of each fleet; 20 take an hour
WRONG_SEEDS = max(1, SEEDS // 2)


@pytest.mark.parametrize("method", METHODS)
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


def wrong(method: str, weights: tuple[int, ...]) -> Iterator[Cell]:
    """Every other nginx against the claim of one method."""
    claim = power.claim_of(method, power.truth_of(method, weights))
    for name, truth in power.wrong_truths(method, weights):
        yield power.cell(method, name, claim, truth, WRONG_SEEDS, 0, traced=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_nginx_never_passes(method: str) -> None:
    """Other methods, weights, keys, orders, zones, shares; on equal servers limits too."""
    cells = chain(power.matrix(method, (1, 1, 1), WRONG_SEEDS), wrong(method, (3, 2, 1)))

    passed = [
        f"{cell.claim} claimed, {cell.truth} true: {dict(cell.words)}"
        for cell in cells
        if (cell.words["PASS"] if not cell.right else cell.words["FAIL"])
    ]

    assert passed == []
