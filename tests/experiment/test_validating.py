"""Live and simulated figures side by side, from invented runs."""

import numpy as np
import pytest

from nginx_llm_lab.experiment import validating
from nginx_llm_lab.experiment.validating import Cell, Validation


def cell(method: str, lives: tuple[float, ...], simulated: float) -> Cell:
    """A cell of one scenario."""
    return Cell("chat", method, "p99", lives, (simulated - 5, simulated + 5), 1.0, ("a", "b"))


def test_methods_are_ordered_only_where_they_differ_by_more_than_the_noise():
    """Repeats differ by up to 10 ms: 100 and 108 are no order, 100 and 150 are one."""
    cells = (
        cell("round_robin", (145, 155), 140),
        cell("least_conn", (98, 102), 103),
        cell("random_two", (108, 108), 101),
    )

    result = Validation((2.0, 3.0), cells, "")

    assert result.noise("chat", "p99") == 10
    assert [(one.lower, one.higher, one.agrees) for one in result.orders()] == [
        ("least_conn", "round_robin", True),
        ("random_two", "round_robin", True),
    ]


def test_a_simulated_order_that_contradicts_the_live_one_is_listed():
    """The lower one live is the higher one simulated."""
    cells = (cell("round_robin", (100, 100), 100), cell("least_conn", (80, 80), 120))

    (order,) = Validation((2.0, 3.0), cells, "").orders()

    assert not order.agrees


@pytest.mark.parametrize(("simulated", "is_close"), [(86, True), (84, False), (116, False)])
def test_a_cell_is_close_within_15_percent_of_the_mean_of_its_live_runs(simulated, is_close):
    """The live mean is 100 ms."""
    assert cell("random", (90, 110), simulated).is_close is is_close


def test_a_validation_compares_the_methods_that_llm_traffic_shows():
    """The default, those that look at requests in flight, and the hash of the prompt."""
    assert ",".join(validating.METHODS) == (
        "round_robin,least_conn,least_time,random_two,prompt_prefix"
    )


def test_the_answers_of_a_validation_are_short():
    """A run that waits for 2,000 slow tokens would take most of its time after its last request."""
    heavy = validating.slowed("heavy_tail", 5.0)

    assert (heavy.output.max, heavy.duration) == (validating.LONGEST, 5.0)


def test_the_time_of_a_validation_is_estimated_from_its_simulated_runs():
    """Twice as many repeats take twice as long, and each takes its duration at least."""
    runs, seconds = validating.estimate(["uniform_chat"], ["round_robin"], 3.0, 2)

    assert (runs, seconds) == (
        2,
        2 * validating.estimate(["uniform_chat"], ["round_robin"], 3.0, 1)[1],
    )
    assert seconds > 6


def test_simulations_differ_where_live_runs_do():
    """Draws differ between simulations; turns do not, and constant delays change nothing."""
    chat = validating.slowed("uniform_chat", 3.0)

    drawn = validating.simulated(chat, "random_two", np.array([0.004, 0.004]))
    in_turn = validating.simulated(chat, "round_robin", np.array([0.004, 0.004]))
    late = validating.simulated(chat, "round_robin", np.array([0.001, 0.004, 0.009]))

    assert len({one.overall.ttft_ms for one in drawn}) > 10
    assert len({one.overall.ttft_ms for one in in_turn}) == 1
    assert len({one.overall.ttft_ms for one in late}) > 10
