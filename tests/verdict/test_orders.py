"""Verdicts by nginx's own order of picks."""

import re
from dataclasses import replace

import pytest

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict import Verdict, case_of, power
from nginx_llm_lab.verdict.case import Case
from nginx_llm_lab.verdict.orders import by_order, traced
from nginx_llm_lab.verdict.power import claim_of, truth_of
from nginx_llm_lab.verdict.simulated import Traffic, Truth, serve

BUSY = Traffic(400, users=20, shortest=5.0, mean=60.0)


def verdict_on(method: str, truth: Truth) -> Verdict:
    """A claim of three equal servers against 400 requests, 20 at a time, with their trace."""
    claim = claim_of(method, truth_of(method, (1, 1, 1)))
    return power.verdict_on(claim, serve(truth, BUSY, 1), sequential=False, traced=True)


def test_a_pass_says_that_the_order_was_nginxs_own() -> None:
    """Every pick of least_conn is exact."""
    verdict = verdict_on("least_conn", Truth("least_conn"))

    assert verdict.word == "PASS"
    assert verdict.why.startswith("exact over 400 hits, in nginx's own order; excludes: ")
    assert verdict.decided == 1


def test_a_fail_names_the_request_and_where_it_should_have_gone() -> None:
    """The first of those that a tenth taken to the last server moved."""
    verdict = verdict_on("round_robin", Truth("round_robin", share=0.1, diverted_to=2))

    differing = re.match(
        r"request (\d+) \(id id\d+\) went to backend-3, expected backend-[12],"
        r" and (\d+) more picks; looks like 10% of requests diverted to backend-3",
        verdict.why,
    )
    assert verdict.word == "FAIL"
    assert differing, verdict.why
    assert int(differing[1]) < 100


def test_draws_are_compared_in_groups() -> None:
    """A random that never takes the same server twice has the right sums."""
    verdict = verdict_on("random", Truth("round_robin"))

    assert verdict.why.startswith("the same server again: 0, expected 133")


def test_the_load_at_each_pick_is_compared_with_the_odds() -> None:
    """A limit that the claim does not have: draws avoid the busy."""
    limited = Truth("random", max_conns=(7, 7, 7))
    claim = claim_of("random", truth_of("random", (1, 1, 1)))

    run = serve(limited, replace(BUSY, number=3_000), 1)
    verdict = power.verdict_on(claim, run, sequential=False, traced=True)

    assert verdict.word == "FAIL"
    assert verdict.why.startswith("the server with the most requests in flight: ")


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (Upstream((Server("a"), Server("b")), "least_conn"), True),
        (Upstream((Server("a"), Server("a")), "least_conn"), False),
        (Upstream((Server("a"), Server("b")), "least_time", measure="header inflight"), False),
    ],
)
def test_an_order_is_used_where_it_can_decide(claim: Upstream, expected: bool) -> None:
    """Servers of one name are one in the log; without a trace there is no order."""
    case = case_of(Case(claim, (), False, {}, True, order=()), [])

    assert traced(case) is expected
    assert not traced(replace(case, order=None))


def test_a_claim_that_another_order_of_servers_may_fit_is_not_named() -> None:
    """`judge` tries every order that DNS may give, and names only the last failure."""
    claim = claim_of("round_robin", truth_of("round_robin", (1, 1, 1)))
    run = serve(Truth("random"), BUSY, 1)
    case = case_of(Case(claim, (), False, {}, True, order=run.order), run.hits)

    assert "looks like" in by_order(case).why
    assert "looks like" not in by_order(case, named=False).why
