"""The bounds of each pick from a log's milliseconds."""

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Sticky, Upstream
from nginx_llm_lab.verdict import case_of, judge
from nginx_llm_lab.verdict.alternatives.logged import LAGS, likelihoods
from nginx_llm_lab.verdict.case import Case
from nginx_llm_lab.verdict.chance.bounds import Bounds
from nginx_llm_lab.verdict.power import claim_of, truth_of
from nginx_llm_lab.verdict.simulated import Traffic, Truth, serve
from tests.verdict.hits import hit

SERVERS = Server("a"), Server("b")
EITHER = [0.0, 0.0], [1.0, 1.0]


def bounds_of(upstream: Upstream, *hits: Hit) -> Bounds:
    """The bounds of overlapping requests under their own claim."""
    return likelihoods(upstream, case_of(Case(upstream, (), False, {}, True), hits))


def of(bounds: Bounds, row: int) -> tuple[list[float], list[float]]:
    """The lowest and the highest probability of a and b at one pick."""
    return bounds.low[row, :2].tolist(), bounds.high[row, :2].tolist()


def test_turns_far_apart_are_known() -> None:
    """The first pick is a with probability 1, the second b."""
    bounds = bounds_of(Upstream(SERVERS), hit("a", 0, 90), hit("b", 50, 60))

    assert of(bounds, 0) == ([1.0, 0.0], [1.0, 0.0])
    assert of(bounds, 1) == ([0.0, 1.0], [0.0, 1.0])


def test_turns_in_one_millisecond_may_be_either() -> None:
    """Two requests of one ms take a's and b's turn in some order."""
    bounds = bounds_of(Upstream(SERVERS), hit("b", 0, 90), hit("a", 0, 60))

    assert of(bounds, 0) == of(bounds, 1) == EITHER


def test_without_a_zone_each_worker_has_its_own_turns() -> None:
    """The first request of each worker is a's."""
    apart = Upstream(SERVERS, zone=False)

    bounds = bounds_of(apart, hit("a", 0, 9, pid=1), hit("a", 20, 29, pid=2))

    assert of(bounds, 1) == ([1.0, 0.0], [1.0, 0.0])


def test_the_busier_server_is_not_allowed() -> None:
    """a is open while the second comes; before it both are idle and take turns."""
    bounds = bounds_of(Upstream(SERVERS, "least_conn"), hit("a", 0, 90), hit("b", 50, 60))

    assert of(bounds, 0) == EITHER
    assert of(bounds, 1) == ([0.0, 1.0], [0.0, 1.0])


def test_the_slower_server_is_not_allowed() -> None:
    """a took 900 ms, so the next request is b's under least_time."""
    claim = Upstream(SERVERS, "least_time", measure="header")

    bounds = bounds_of(claim, hit("a", 0, 900), hit("b", 950, 960), hit("b", 1000, 1010))

    assert of(bounds, 2) == ([0.0, 1.0], [0.0, 1.0])


def test_a_key_is_exact_and_a_missing_one_unknown() -> None:
    """Hash: each URI has its server, an empty key takes turns."""
    claim = Upstream(SERVERS, "hash", "$arg_user")

    bounds = bounds_of(claim, hit("a", 0, 9, hash_key="x"), hit("a", 0, 9))

    assert bounds.low[0].sum() == bounds.high[0].sum() == 1
    assert of(bounds, 1) == EITHER


def test_clients_that_sticky_binds_are_unknown() -> None:
    """Picks near a failure are unknown as well."""
    bound = Upstream(SERVERS, sticky=Sticky("cookie", ("$cookie_srv",)))
    failed = structs.replace(hit("b", 0, 9), upstream_addr=("a", "b"), upstream_status=(502, 200))

    assert of(bounds_of(bound, hit("a", 0, 9)), 0) == EITHER
    assert of(bounds_of(Upstream(SERVERS), failed, hit("a", 20, 29)), 1) == EITHER


def test_a_lone_server_gets_everything() -> None:
    """The only other server is down."""
    claim = Upstream((Server("a"), replace(SERVERS[1], down=True)), "least_conn")

    assert of(bounds_of(claim, hit("a", 0, 9)), 0) == ([1.0, 0.0], [1.0, 0.0])


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "least_time", "random_two"])
def test_few_picks_of_a_right_nginx_seem_impossible(method: str) -> None:
    """Fewer than the doubt that the bounds admit; under another method more, but for draws."""
    claim = claim_of(method, truth_of(method, (1, 1, 1)))
    traffic = Traffic(1_000, users=8, shortest=5.0, mean=60.0)

    def impossible(really: str) -> float:
        hits = serve(Truth(really), traffic, 1).hits
        judged = case_of(Case(claim, (), False, {}, True), hits)
        return len(likelihoods(claim, judged).contradictions()) / len(hits)

    assert impossible(method) < LAGS
    assert impossible("hash") > LAGS or claim.record.by_draw


def test_the_columns_are_the_claims_whatever_the_order_of_a_hypothesis() -> None:
    """b before a gives b the first turn, in b's column."""
    claim = Upstream(SERVERS)
    hits = hit("a", 0, 9), hit("b", 20, 29)
    judged = case_of(Case(claim, (), False, {}, True), hits)

    bounds = likelihoods(replace(claim, servers=SERVERS[::-1]), judged)

    assert np.array_equal(bounds.high[:, :2], [[0, 1], [1, 0]])


def test_a_backup_may_be_picked_where_the_others_may_be_full() -> None:
    """a may have one request open and be full; before that it is not, and b must wait."""
    claim = Upstream(
        (replace(SERVERS[0], max_conns=1), replace(SERVERS[1], backup=True)), "least_conn"
    )

    bounds = bounds_of(claim, hit("a", 0, 90), hit("b", 50, 60), hit("a", 100, 110))

    assert of(bounds, 0) == ([1.0, 0.0], [1.0, 0.0])
    assert of(bounds, 1) == EITHER


def test_backups_alone_are_judged_by_their_loads() -> None:
    """The only primary server is down; two backups share the load, not the turns."""
    backups = tuple(Server(name, backup=True) for name in "bc")
    claim = Upstream((Server("a", down=True), *backups), "least_conn")
    hits = [hit("b", 0, 9_000), *(hit("c", n * 100, n * 100 + 50) for n in range(1, 80))]

    assert judge(claim, hits, sequential=False).word != "FAIL"


def test_two_draws_of_very_unequal_weights_are_left_to_turns() -> None:
    """100 to 1: twenty draws mostly bring no second server, so most picks are the heavy one's."""
    claim = claim_of("random_two", truth_of("random_two", (100, 1)))
    hits = serve(truth_of("random_two", (100, 1)), Traffic(250), 1).hits

    verdict = judge(claim, hits, sequential=False)

    assert verdict.word == "UNSURE"
    assert "does not show the turns" in verdict.why


@pytest.mark.parametrize("weights", [(100, 1), (10, 1, 1), (3, 1)])
def test_turns_after_two_draws_share_by_weight(weights: tuple[int, ...]) -> None:
    """One request at a time: a right nginx agrees with the odds, a plain draw does not."""
    truth = truth_of("random_two", weights)
    claim = claim_of("random_two", truth)
    wrong = claim_of("random", truth_of("random", weights))

    for seed in range(3):
        hits = serve(truth, Traffic(2000), seed).hits

        assert judge(claim, hits, sequential=True).word != "FAIL"
        assert judge(wrong, hits, sequential=True).word == "FAIL"
