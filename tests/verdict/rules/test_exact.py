"""Requests that came one after the other, close to the moment at which a second begins."""

import random

import pytest

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, Pick, balancer
from nginx_llm_lab.verdict import judge
from nginx_llm_lab.word import Word

DEAD = Server("dead:9", weight=3, max_fails=3, fail_timeout=1)
CLAIM = Upstream((DEAD, Server("alive:80", weight=2)))
SECOND, HITS, LASTING, LASTS = 1_795_000_000.0, 100, 4, 1.4


def served(begins: float) -> list[Hit]:
    """What nginx logs of a request each millisecond; one of them lasts until a ban is over."""
    nginx, hits, moment = balancer(CLAIM), [], round(SECOND + begins, 3)
    for number in range(HITS):
        request = nginx.arrive(Arrival(t=moment, fail={DEAD.name: "refused"}))
        nginx.finish()
        moment = round(moment + (LASTS if number == LASTING else 0.001), 3)
        hits.append(logged(request.pick or Pick(None, ()), moment, number == LASTING))
    return hits


def logged(pick: Pick, end: float, lasting: bool) -> Hit:
    """The line of one request; a refused attempt takes no time."""
    took = LASTS if lasting else 0.001
    failed = [name == DEAD.name for name in pick.attempts]
    return Hit(
        pick.attempts,
        200,
        end,
        took,
        upstream_status=tuple(502 if bad else 200 for bad in failed),
        upstream_connect_time=tuple(None if bad else 0.0 for bad in failed),
        upstream_header_time=tuple(None if bad else took for bad in failed),
        upstream_response_time=tuple(0.0 if bad else took for bad in failed),
    )


@pytest.mark.parametrize("begins", [number / 1000 for number in range(980, 1002)])
def test_a_second_that_begins_within_milliseconds_is_not_held_against_nginx(begins: float) -> None:
    """A right nginx passes at whichever millisecond the run began."""
    verdict = judge(CLAIM, served(begins), sequential=True, alone=True)

    assert verdict.word == Word.PASS, verdict.why


@pytest.mark.parametrize("seed", range(20))
def test_a_wrong_pick_is_a_fail_there_too(seed: int) -> None:
    """One request that went elsewhere than predicted is named."""
    hits = served(random.Random(seed).uniform(0.98, 1.0))
    number = random.Random(seed).randrange(20, HITS)
    retried = len(hits[number].upstream_addr) > 1
    end = hits[number].msec
    attempts = ("alive:80",) if retried else ("dead:9", "alive:80")
    hits[number] = logged(Pick("alive:80", attempts), end, False)

    verdict = judge(CLAIM, hits, sequential=True, alone=True)

    assert verdict.word == Word.FAIL
