"""Turns from an unknown starting point, by inaccurate times."""

import random

from msgspec import structs

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict import judge

CLAIM = Upstream(tuple(map(Server, "abc")))
SINCE = 10_000  # ms
CLOCK = 2_000.0  # ms by which nginx's clock may lag


def log_of(order: str, seed: int) -> tuple[list[Hit], dict[str, tuple[float, float]]]:
    """A pick each 5 ms, up to 300 ms after its request's start; before SINCE b is held up."""
    rng = random.Random(seed)
    hits, served = [], {}
    for number, server in enumerate(order):
        pick = SINCE - 2_000 + 5 * number
        start, came = pick - rng.randrange(300), pick + 1
        if server == "b" and pick < SINCE:
            came += 1_500
        lasted = (came + 20 - start) / 1000
        took = (came + 20 - pick) / 1000
        hit = Hit((server,), 200, (came + 20) / 1000, lasted, request_id=str(number))
        hits.append(
            structs.replace(
                hit,
                upstream_status=(200,),
                upstream_connect_time=(0.0,),
                upstream_header_time=(took,),
                upstream_response_time=(took,),
            )
        )
        served[str(number)] = (came / 1000, (came + 20) / 1000)
    return hits, served


def word_of(order: str, seed: int) -> str:
    """The verdict on the picks since a moment, some of which may have been before it."""
    hits, served = log_of(order, seed)
    since = SINCE / 1000
    verdict = judge(
        CLAIM, hits, sequential=False, fresh=False, since=since, clock=CLOCK, served=served
    )
    return str(verdict.word)


def test_times_that_are_known_worse_for_one_server_make_no_right_nginx_fail() -> None:
    """Before the first moment those of b may have been much later, for all that the times tell."""
    assert [word_of("abc" * 400, seed) for seed in range(5)].count("FAIL") == 0


def test_draws_and_a_heavier_server_fail_by_the_same_times() -> None:
    """The times are known badly, but not as badly as that."""
    drawn = "".join(random.Random(1).choices("abc", k=3000))

    assert word_of(drawn, 1) == "FAIL"
    assert word_of("abcaabcabc" * 300, 1) == "FAIL"
