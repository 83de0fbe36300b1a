"""Draws in a log that is in the order of the answers."""

import random

import pytest

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict import Verdict, judge
from tests.verdict.hits import hit

SERVERS = "abcde"
BURST = 10  # requests that nginx finds in one turn of its event loop


def burst_log(rng: random.Random, by: str) -> list[Hit]:
    """A log of bursts; each server is held up, then gives all its answers to a burst at once.

    `by` is the field by which requests of one ms differ.
    """
    hits, number = [], 0
    for began in range(1000, 31_000, 100):
        wakes = {server: began + rng.randint(5, 60) for server in SERVERS}
        burst = []
        for _ in range(BURST):
            number += 1
            server = rng.choice(SERVERS)
            value = number if by == "connection" else f"/{rng.getrandbits(64):x}"
            burst.append(hit(server, began, wakes[server], **{by: value}))
        hits += sorted(burst, key=lambda one: one.msec)
    return hits


def verdict_on(hits: list[Hit]) -> Verdict:
    """The verdict on a stretch in the middle of a log."""
    claim = Upstream(tuple(map(Server, SERVERS)), "random")
    return judge(claim, hits, sequential=False, fresh=False, since=1.0)


@pytest.mark.parametrize("by", ["connection", "request_id", "request_uri"])
def test_answers_that_come_together_make_no_draws_alike(by: str) -> None:
    """In the order of the log the same server came up again twice as often as by chance."""
    hits = burst_log(random.Random(7), by)

    assert verdict_on(hits).word == "PASS"


def test_servers_that_come_up_twice_in_a_row_are_not_drawn() -> None:
    """By the order in which the requests connected."""
    rng = random.Random(7)
    hits = [
        hit(server, 1000 + 2 * number, 1010 + 2 * number, connection=2 * number + again)
        for number in range(1500)
        for server in [rng.choice(SERVERS)]
        for again in (0, 1)
    ]

    assert verdict_on(hits).word == "FAIL"


@pytest.mark.parametrize(("max_conns", "word"), [(1, "UNSURE"), (2, "PASS")])
def test_sequential_draws_do_not_reach_two_connections(max_conns: int, word: str) -> None:
    """One request at a time; the one before it may not have been released yet."""
    rng = random.Random(3)
    claim = Upstream(tuple(Server(name, max_conns=max_conns) for name in SERVERS), "random")
    hits = [hit(rng.choice(SERVERS), 10 * n, 10 * n + 5) for n in range(1, 3001)]

    assert judge(claim, hits, sequential=True).word == word
    assert judge(claim, hits, sequential=False).word == "UNSURE"
