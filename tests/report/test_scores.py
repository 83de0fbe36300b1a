"""A comparison as tables for people."""

from nginx_llm_lab.accounts.scorecard import Run, Scorecard
from nginx_llm_lab.report import scores


def card(gaps: tuple[float, ...]) -> Scorecard:
    """Two methods with the same seeds: round_robin's TTFT p50 is larger by these."""
    runs = [
        Run("mixed_fleet", method, seed, {"ttft_p50_ms": 10.0 + extra})
        for seed, gap in enumerate(gaps)
        for method, extra in (("least_conn", 0.0), ("round_robin", gap))
    ]
    return Scorecard(tuple(runs), {}, simulated=True)


def test_each_difference_stands_beside_its_interval() -> None:
    """From the best method, over the pairs of runs with the same seed."""
    shown = scores.scorecard(card((4.0, 5.0, 6.0, 5.0, 4.0, 6.0)))

    assert "behind the best  method       difference  95 % interval" in shown
    assert "ttft_p50_ms      round_robin  +5.0        +4.1 to +5.9" in shown


def test_a_tie_has_its_interval_too_and_equal_figures_have_one_line() -> None:
    """What never differs needs no row."""
    assert "+4.1 to" not in (tie := scores.scorecard(card((4.0, -5.0, 6.0, -5.0, 4.0, -3.0))))
    assert "as good" in tie
    assert "the same in all runs: ttft_p50_ms" in scores.scorecard(card((0.0, 0.0, 0.0)))


def test_an_interval_that_includes_zero_is_a_tie() -> None:
    """No winner is named where the seeds disagree."""
    shown = scores.scorecard(card((4.0, -5.0, 6.0, -5.0, 4.0, -3.0)))

    assert "*" not in shown.splitlines()[1]
    assert shown.splitlines()[1].count("=") == 2
