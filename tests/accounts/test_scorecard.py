"""The winner of a comparison, and the conditions of a tie."""

import numpy as np
import pytest

from nginx_llm_lab.accounts.scorecard import (
    MEASURES,
    Run,
    Scorecard,
    contest,
    difference,
    read_runs,
    trade_offs,
)

TTFT, FAIR = MEASURES["ttft_p99_ms"], MEASURES["fair_tokens"]


def seeds(*values: float) -> dict[int, float]:
    """A figure by seed."""
    return dict(enumerate(values))


def test_a_constant_gain_wins_over_the_variation_of_seeds():
    """Seeds differ by a factor of ten, the pairs always by 20."""
    result = contest("s", TTFT, {"a": seeds(100, 1000, 300), "b": seeds(120, 1020, 320)})

    assert result.best == ("a",)


def test_a_gain_that_changes_sides_is_a_tie():
    """The mean is smaller, the interval holds zero."""
    result = contest("s", TTFT, {"a": seeds(100, 90, 130), "b": seeds(120, 130, 90)})

    assert result.best == ("a", "b")


def test_three_pairs_of_the_same_sign_are_not_enough_by_themselves():
    """A bootstrap of three pairs never contains zero then; Student's t does."""
    gap = difference(seeds(101, 102, 130), seeds(100, 100, 100))

    assert gap.mean == pytest.approx(11)
    assert not gap.is_decided


def test_a_difference_under_a_hundredth_is_a_tie():
    """The interval excludes zero, but the difference is negligible."""
    result = contest("s", TTFT, {"a": seeds(1000, 1000, 1000), "b": seeds(1005, 1006, 1005)})

    assert result.best == ("a", "b")


def test_more_is_better_for_fairness():
    """The larger index wins."""
    assert contest("s", FAIR, {"a": seeds(0.5, 0.5), "b": seeds(0.9, 0.9)}).best == ("b",)


def test_equal_methods_hardly_ever_win():
    """Same distribution: at most one in ten comparisons names a winner at 95 %."""
    rng = np.random.default_rng(1)
    wins = 0
    for _ in range(200):
        values = {name: seeds(*rng.normal(100, 20, 5)) for name in ("a", "b")}
        wins += len(contest("s", TTFT, values).best) == 1

    assert wins <= 20


def test_a_winner_that_loses_another_measure_is_a_trade_off():
    """The trade-off names both measures."""
    runs = [
        Run("s", method, seed, {"ttft_p99_ms": ttft + seed, "fair_tokens": fair})
        for method, ttft, fair in (("a", 100, 0.5), ("b", 200, 0.9))
        for seed in range(3)
    ]

    lines = list(trade_offs(Scorecard(tuple(runs), {}).contests()))

    assert lines == [
        "s: a wins ttft_p99_ms; loses fair_tokens",
        "s: b wins fair_tokens; loses ttft_p99_ms",
    ]


def test_a_line_that_is_no_run_is_skipped(tmp_path):
    """What a crash or an editor left in the file: half a line, other types, no text."""
    whole = b'{"scenario": "a", "method": "hash", "seed": 1, "values": {"ttft_p50_ms": 2.5}}'
    broken = [whole[:40], whole.replace(b'{"ttft_p50_ms": 2.5}', b"null"), b"\xff", b"[]"]
    (tmp_path / "runs.jsonl").write_bytes(b"\n".join([*broken, whole]))

    assert read_runs(tmp_path) == [Run("a", "hash", 1, {"ttft_p50_ms": 2.5})]
