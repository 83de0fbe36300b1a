"""Verdicts with alternatives, on simulated nginxes that share no code with the oracle."""

from dataclasses import replace

import pytest

from nginx_llm_lab.nginxconf.methods import METHODS
from nginx_llm_lab.verdict import Verdict, judge, power
from nginx_llm_lab.verdict.alternatives.weighing import Fate, kinds, same_of_mixed
from nginx_llm_lab.verdict.power import claim_of, truth_of
from nginx_llm_lab.verdict.simulated import Traffic, Truth, serve

DOWN = {"a down": "excluded", "b down": "same", "c down": "same"}


def verdict_on(method: str, truth: Truth, number: int = 0, seed: int = 1) -> Verdict:
    """A claim of three equal servers against one simulated run."""
    claim = claim_of(method, truth_of(method, (1, 1, 1)))
    (verdict,) = power.runs(method, claim, truth, [seed], number)
    return verdict


@pytest.mark.parametrize("method", METHODS)
def test_a_right_nginx_passes_at_the_first_try(method: str) -> None:
    """With as many requests as a PASS needs; it says what it excludes."""
    verdict = verdict_on(method, truth_of(method, (1, 1, 1)))

    assert verdict.word == "PASS", verdict
    assert "excludes: " in verdict.why
    assert "a share of " in verdict.why


@pytest.mark.parametrize(
    ("method", "truth", "looks"),
    [
        ("least_conn", Truth("random_two"), "random_two"),
        ("round_robin", Truth("round_robin", zone=False), "round_robin without zone, 2 workers"),
        ("least_conn", Truth("round_robin", zone=False), "round_robin without zone, 2 workers"),
        ("random", Truth("round_robin"), "round_robin"),
        ("hash", Truth("hash", key="$remote_addr"), "hash of $remote_addr"),
        ("least_time", Truth("least_time", (2, 1, 1)), "weight 2 instead of 1 at backend-1"),
        ("least_conn", Truth("least_conn", down=frozenset({1})), "backend-2 down"),
        ("random", Truth("random", down=frozenset({1})), "backend-2 down"),
        (
            "least_conn",
            Truth("least_conn", share=0.1, diverted_to=0),
            "10% of requests diverted to backend-1",
        ),
    ],
)
def test_a_fail_names_what_it_looks_like(method: str, truth: Truth, looks: str) -> None:
    """The alternative that explains the evidence best."""
    verdict = verdict_on(method, truth)

    assert verdict.word == "FAIL"
    assert verdict.why.endswith(f"looks like {looks}")


def test_an_unsure_names_what_is_possible_and_the_run_that_would_tell() -> None:
    """Twenty requests exclude no share."""
    verdict = verdict_on("round_robin", truth_of("round_robin", (1, 1, 1)), 20)

    assert verdict.word == "UNSURE"
    assert "do not exclude 10% of requests diverted to backend-1" in verdict.why
    assert verdict.command.startswith("lab run round_robin -n ")


def test_what_is_the_same_on_this_traffic_does_not_count() -> None:
    """One request at a time least_conn is round robin, and says so."""
    claim = claim_of("least_conn", truth_of("least_conn", (1, 1, 1)))
    run = serve(Truth("least_conn"), Traffic(300), 1)

    verdict = power.verdict_on(claim, run, sequential=True, traced=False)

    assert verdict.word == "PASS"
    assert "the same on this traffic: round_robin, " in verdict.why


def test_a_server_that_no_key_reaches_may_be_down_unseen() -> None:
    """Of one kind, what is the same on this traffic is named beside what is excluded."""
    fates = [
        *(Fate("a server down", name, word, 20.0) for name, word in DOWN.items()),
        *(Fate("another order", f"order {n}", "same" if n else "excluded", 20.0) for n in range(5)),
    ]

    assert kinds(fates, "excluded") == ("a server down", "another order")
    assert list(same_of_mixed(fates)) == ["b down", "c down", "another order (4)"]


def test_a_missing_zone_is_named() -> None:
    """Two workers without a zone explain the picks of turns and loads best."""
    for method in ("round_robin", "least_conn"):
        claim = claim_of(method, truth_of(method, (1, 1, 1)))
        looks = [
            verdict.why.rpartition("looks like ")[2]
            for verdict in power.runs(method, claim, Truth(method, zone=False), range(2), 300)
            if verdict.word == "FAIL"
        ]

        assert looks == [f"{method} without zone, 2 workers"] * 2


def test_a_missing_zone_of_one_worker_is_the_same() -> None:
    """It took every request, so nothing could be shared."""
    claim = claim_of("least_conn", truth_of("least_conn", (1, 1, 1)))
    alone = Truth("least_conn", workers=1, zone=False)

    (verdict,) = power.runs("least_conn", claim, alone, [1])

    assert verdict.word == "PASS"
    assert "the same on this traffic: no zone (one worker took every request)" in verdict.why


def test_max_conns_that_nginx_ignores_is_seen() -> None:
    """The same claim, kept, passes."""
    kept = replace(truth_of("random_two", (1, 1, 1)), max_conns=(3, 3, 3))
    claim = claim_of("random_two", kept)
    ignored = replace(kept, max_conns=())

    (right,) = power.runs("random_two", claim, kept, [1])
    (wrong,) = power.runs("random_two", claim, ignored, [1])

    assert (right.word, wrong.word) == ("PASS", "FAIL"), (right, wrong)


@pytest.mark.parametrize("really", ["round_robin", "least_conn", "least_time"])
def test_sticky_that_binds_nobody_is_unsure(really: str) -> None:
    """An nginx without sticky sets no cookie, so that no client sends one back."""
    verdict = verdict_on("sticky", Truth(really))

    assert (verdict.word, verdict.why) == ("UNSURE", "no request was bound to a server")


def test_sticky_whose_clients_return_without_a_cookie_is_wrong() -> None:
    """The lab's clients send back every cookie: where none is sent, nginx set none."""
    run = serve(Truth("round_robin"), Traffic(300), 1)
    claim = claim_of("sticky", truth_of("sticky", (1, 1, 1)))

    verdict = judge(claim, run.hits, sequential=True, returning=240)

    assert verdict.word == "FAIL"
    assert verdict.why.endswith("looks like no sticky")


def test_sticky_with_one_primary_passes_by_the_cookies_that_nginx_set() -> None:
    """All requests go to that server with and without sticky; only nginx makes such a cookie."""
    truth = replace(truth_of("sticky", (1, 1)), backup=frozenset({1}))

    (right,) = power.runs("sticky", claim_of("sticky", truth), truth, [1])
    unbound = Truth("round_robin", (1, 1), backup=frozenset({1}))
    (wrong,) = power.runs("sticky", claim_of("sticky", truth), unbound, [1])

    assert right.word == "PASS", right
    assert "no sticky" not in right.why
    assert (wrong.word, wrong.why) == ("UNSURE", "no request was bound to a server")
