"""The text of a verdict after its alternatives were weighed."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Sticky, Upstream
from nginx_llm_lab.verdict import case_of
from nginx_llm_lab.verdict.alternatives.conclusion import (
    at_once,
    bounds_of_claim,
    conclude,
    deciding_run,
    failed,
    undecided,
)
from nginx_llm_lab.verdict.alternatives.weighing import Weighing
from nginx_llm_lab.verdict.case import Case, Verdict
from nginx_llm_lab.word import Word

CLAIM = Upstream((Server("a"), Server("b")))
PASSED = Verdict(Word.PASS, "round_robin", "a: 1, b: 1", "exact over 2 hits")


def hit(server: str, start: float, seconds: float = 0.01, **more: Any) -> Hit:
    """A request with this duration in seconds."""
    return Hit((server,), 200, start + seconds, seconds, **more)


def case(*hits: Hit, upstream: Upstream = CLAIM, sequential: bool = True, **more: Any) -> Case:
    """A case with its hits."""
    plain = Case(upstream, (), sequential, {}, True, **more)
    return case_of(plain, hits)


def turns(number: int) -> list[Hit]:
    """Requests that took turns, a second apart."""
    return [hit("ab"[n % 2], float(n)) for n in range(number)]


def test_a_pass_says_what_is_excluded_and_what_is_the_same() -> None:
    """One request at a time least_conn is round robin."""
    verdict = conclude(case(*turns(300)), PASSED)

    assert verdict.word == "PASS"
    assert verdict.why.startswith("exact over 2 hits; excludes: ")
    assert "; the same on this traffic: least_conn" in verdict.why


@pytest.mark.parametrize(
    ("upstream", "pids", "note"),
    [
        (CLAIM, (7,), "no zone (one worker took every request)"),
        (replace(CLAIM, zone=False), (7,), "a shared zone (one worker took every request)"),
        (CLAIM, (0,), ""),
        (CLAIM, (7, 8), ""),
    ],
)
def test_a_zone_is_the_same_where_one_worker_took_every_request(
    upstream: Upstream, pids: tuple[int, ...], note: str
) -> None:
    """With two workers it is excluded; a log without workers tells nothing of it."""
    hits = [
        structs.replace(logged, pid=pids[n // 2 % len(pids)]) for n, logged in enumerate(turns(300))
    ]

    verdict = conclude(case(*hits, upstream=upstream), PASSED)

    assert verdict.word == "PASS"
    assert (note or "zone (one worker") in verdict.why or not note
    assert bool(note) == ("one worker" in verdict.why)


def test_an_unsure_names_four_and_counts_the_rest() -> None:
    """The run that would decide has more requests."""
    weighed = Weighing(possible=("random", "ip_hash", "hash", "b down", "x", "y"), needed=700)

    verdict = undecided(case(*turns(20)), weighed, 0.5)

    assert verdict.why == "20 hits do not exclude random, ip_hash, hash, b down, 2 more"
    assert verdict.command == "lab run round_robin -n 700"
    assert (verdict.word, verdict.decided) == ("UNSURE", 0.5)


@pytest.mark.parametrize(
    ("method", "sequential", "command"),
    [
        ("least_conn", True, "-c 20"),
        ("round_robin", False, "-c 1"),
        ("least_conn", False, "-c 4"),
    ],
)
def test_where_more_requests_would_not_tell_another_concurrency_is_named(
    method: str, sequential: bool, command: str
) -> None:
    """Requests that overlap for loads, one at a time for turns, half as many for loads."""
    hits = [hit("ab"[n % 2], n / 8, 1.0) for n in range(800)]
    judged = case(*hits, upstream=replace(CLAIM, method=method), sequential=sequential)

    assert deciding_run(judged, Weighing(possible=("random",))) == f"lab run {method} {command}"
    assert at_once(judged) == 8


def test_a_fail_says_what_it_looks_like() -> None:
    """Unless it is judged by the claim alone."""
    hits = [hit("a", float(n), remote_addr=f"10.{n}.0.1", request_uri=f"/{n}") for n in range(50)]

    assert failed(case(*hits), "so it is").why == "so it is; looks like b down"
    assert failed(case(*hits, alone=True), "so it is").why == "so it is"


def test_no_cookie_at_all_looks_like_no_sticky() -> None:
    """From clients that return theirs; of others it is not known."""
    sticky = replace(CLAIM, sticky=Sticky("cookie", ("$cookie_srv",)))

    wrong = conclude(case(*turns(300), upstream=sticky, returning=99), PASSED)
    unknown = conclude(case(*turns(300), upstream=sticky), PASSED)

    assert (
        wrong.why == "no cookie in 99 requests of clients that return theirs; looks like no sticky"
    )
    assert (wrong.word, unknown.word) == ("FAIL", "UNSURE")


def test_overlapping_clients_that_sticky_binds_are_named_beside_what_is_unknown() -> None:
    """As in `lab load`: the log does not show the turns of those that came without a cookie."""
    sticky = replace(CLAIM, sticky=Sticky("cookie", ("$cookie_srv",)))
    bound = replace(PASSED, why="all 200 bound requests of 300 hits exact")

    verdict = conclude(case(*turns(300), upstream=sticky, sequential=False), bound)

    assert str(verdict).startswith("UNSURE")
    assert verdict.why == (
        "all 200 bound requests of 300 hits exact;"
        " the order in which the others took their turns is unknown"
    )
    assert verdict.command == "lab run sticky -c 1"


def test_a_claim_that_was_compared_exactly_is_certain() -> None:
    """Each server that was seen had a probability of 1; draws keep their odds."""
    exact = bounds_of_claim(case(*turns(4)))
    drawn = bounds_of_claim(case(*turns(4), upstream=replace(CLAIM, method="random")))

    assert exact.low.tolist() == exact.high.tolist() == [[1, 0, 0], [0, 1, 0]] * 2
    assert drawn.low.tolist() == [[0.5, 0.5, 0]] * 4
