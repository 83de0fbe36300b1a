"""The probability of each pick under a hypothesis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.trace import PICK, RELEASE, Step
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict import case_of
from nginx_llm_lab.verdict.alternatives.hypotheses import alternatives
from nginx_llm_lab.verdict.alternatives.likelihoods import (
    likelihoods,
    one_after_the_other,
    with_picks,
)
from nginx_llm_lab.verdict.case import Case
from nginx_llm_lab.verdict.power import claim_of, truth_of
from nginx_llm_lab.verdict.simulated import Traffic, Truth, serve

TWO = Upstream((Server("a"), Server("b")))


def case(upstream: Upstream, hits: Sequence[Hit], *, sequential: bool = True, **more: Any) -> Case:
    """A case with its hits."""
    return case_of(
        Case(upstream, (), sequential, {}, True, **more),
        hits,
    )


def at(*servers: str, status: int = 200, msec: float = 0.0) -> Hit:
    """A request that these servers were tried for; all but the last refused."""
    failed = len(servers) - 1
    return Hit(
        servers,
        status,
        msec,
        upstream_status=(*[502] * failed, status),
        upstream_connect_time=(*[None] * failed, 0.0),
        upstream_header_time=(*[None] * failed, 0.001),
        upstream_response_time=(*[0.0] * failed, 0.001),
    )


@pytest.mark.parametrize("method", ["round_robin", "random_two", "hash"])
@pytest.mark.parametrize("traced", [True, False])
def test_every_hypothesis_has_the_same_rows(method: str, traced: bool) -> None:
    """A pick each, and a column for each server and for nobody; the first rows are a part."""
    claim = claim_of(method, truth_of(method, (2, 1)))
    run = serve(Truth(method, (2, 1)), Traffic(60, 4), 1)
    order = run.order if traced else None
    judged = case(claim, run.hits, sequential=False, order=order)
    seen = likelihoods(claim, judged).seen.tolist()

    for other in alternatives(claim, 2):
        bounds = likelihoods(other.upstream, judged)
        part = likelihoods(other.upstream, judged, 20)

        assert bounds.seen.tolist() == seen
        assert bounds.low.shape == bounds.high.shape == (60, 3)
        assert (bounds.low <= bounds.high).all()
        if traced or not other.upstream.record.by_load:  # a log's loads take all its requests
            assert np.array_equal(part.low, bounds.low[:20])


def test_a_draw_has_the_odds_of_the_weights() -> None:
    """Weights 3:2:1; "no live upstreams" has probability 0."""
    claim = Upstream((Server("a", 3), Server("b", 2), Server("c", 1)), "random")

    bounds = likelihoods(claim, case(claim, [at("a"), at("c")]))

    assert bounds.low.round(3).tolist() == [[0.5, 0.333, 0.167, 0.0]] * 2
    assert np.array_equal(bounds.low, bounds.high)


def test_requests_one_after_the_other_are_replayed_in_the_logs_order() -> None:
    """Turns: a, b, then a again, which b cannot have."""
    bounds = likelihoods(TWO, case(TWO, [at("a"), at("b"), at("b")]))

    assert bounds.high[:, :2].tolist() == [[1, 0], [0, 1], [1, 0]]
    assert bounds.contradictions().tolist() == [2]


def test_a_retry_is_a_pick_of_its_own() -> None:
    """a refuses, b answers: two picks, and the first one's release is a failure."""
    steps = list(one_after_the_other(case(TWO, [at("a", "b")])))

    assert [(step.kind, step.server, step.failed) for step in steps] == [
        ("pick", "a", False),
        ("timed", "a", False),
        ("release", "a", True),
        ("pick", "b", False),
        ("timed", "b", False),
        ("release", "b", False),
    ]


def test_nobody_is_picked_and_never_released() -> None:
    """The upstream's own name stands for no live upstreams."""
    steps = list(one_after_the_other(case(TWO, [at("llm", status=502)])))

    assert [(step.kind, step.server) for step in steps] == [("pick", "llm")]


def test_a_part_of_an_order_has_what_overlaps_its_last_pick() -> None:
    """A release after the pick in the trace may have happened before it."""
    events = [("1", PICK, 1, 2), ("2", PICK, 3, 6), ("1", RELEASE, 4, 7), ("2", RELEASE, 8, 9)]
    steps = [
        Step(request, 0, kind, False, "a", since=since, until=until)
        for request, kind, since, until in events
    ]

    assert with_picks(steps, 1) == steps[:1]
    assert with_picks(steps, 2) == steps[:3]
    assert with_picks(steps, 3) == steps


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "least_time", "random_two"])
@pytest.mark.parametrize("traced", [True, False])
def test_a_part_has_the_bounds_of_the_whole(method: str, traced: bool) -> None:
    """Wherever it ends; else a true hypothesis would be excluded by its last pick."""
    claim = claim_of(method, truth_of(method, (3, 2, 1)))
    run = serve(Truth(method, (3, 2, 1)), Traffic(300, 20), 1)
    judged = case(claim, run.hits, sequential=False, order=run.order if traced else None)
    whole = likelihoods(claim, judged)

    for number in range(100, 200):
        part = likelihoods(claim, judged, number)
        assert np.array_equal(part.high, whole.high[:number]), number


def test_what_cannot_be_replayed_is_unknown() -> None:
    """Two servers of one name."""
    twins = Upstream((Server("a"), Server("a")), "least_conn")

    bounds = likelihoods(twins, case(twins, [at("a"), at("a")]))

    assert not bounds.known.any()


def test_draws_that_fail_leave_a_pick_to_turns() -> None:
    """One server is far heavier: 20 draws may all end at it, then it is anyone's turn."""
    claim = Upstream((Server("a", 99), Server("b", 1), Server("c", 1)), "random_two")

    bounds = likelihoods(claim, case(claim, [at("a")]))

    assert bounds.high[0, 1] > bounds.low[0, 1] > 0
    assert bounds.high[0, 1] > 0.6
