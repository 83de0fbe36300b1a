"""Random configurations through real nginx, request by request against the prediction."""

import itertools
import time

import pytest

from nginx_llm_lab.stack import nginx
from nginx_llm_lab.traffic import probes, sender, workload
from nginx_llm_lab.word import Word
from tests.heavy import configs

GROUPS, EACH, HITS = 20, 11, 100


def methods_of(five):
    """The exact methods that this nginx has."""
    old = nginx.version(five.lab) < (1, 29, 6)
    return tuple(name for name in configs.EXACT if not (old and name == "sticky"))


@pytest.mark.parametrize("group", range(GROUPS))
def test_every_request_goes_where_it_was_predicted(five, tmp_path, group):
    """220 configurations, 22,000 requests one after the other; every fourth config has failures."""
    for number in range(EACH):
        seed = group * EACH + number
        found = configs.config(seed, methods_of(five), failing=seed % 4 == 0)

        said = configs.observe(five.lab, found, configs.requests(found, HITS), tmp_path)

        assert said.hits == HITS
        assert said.word == "PASS", f"seed {seed}: {said}\n{found.text}"


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_counts_are_exact_when_requests_overlap(five, tmp_path, seed):
    """Twenty at a time: turns are exact in number, keys one by one."""
    found = configs.config(seed, ("round_robin", "ip_hash", "hash", "hash_consistent"))
    plan = configs.requests(found, 200)

    at_once = probes.Plan(plan.requests, 20, plan.sessions)
    said = configs.observe(five.lab, found, at_once, tmp_path)

    assert said.word == "PASS", f"seed {seed}: {said}\n{found.text}"


BY_CHANCE_OR_LOAD = ("random", "random_two", "least_conn", "least_time")


def gated(five, method):
    """Skip where this nginx has not got the method."""
    if method == "least_time" and nginx.version(five.lab) < (1, 31, 0):
        pytest.skip("least_time needs nginx 1.31.0")


@pytest.mark.parametrize("method", BY_CHANCE_OR_LOAD)
def test_a_right_nginx_is_never_called_wrong(five, tmp_path, method):
    """25 runs each of the methods by chance and by load, 100 in all: no FAIL."""
    gated(five, method)
    words = []
    for seed in range(2000, 2025):
        found = configs.config(seed, (method,))
        count, at_once = {"random": (1000, 12), "random_two": (200, 6)}.get(method, (200, 12))
        plan = probes.plan(method, "", count, seed, concurrency=at_once)
        words.append(configs.observe(five.lab, found, plan, tmp_path).word)

    assert "FAIL" not in words
    assert words.count(Word.PASS) > 0


WRONG = {
    "weights": configs.weights_changed,
    "method": lambda text: text.replace("least_conn;", ""),
}


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("random", "weights"),
        ("random_two", "weights"),
        ("least_conn", "weights"),
        ("least_conn", "method"),
        ("round_robin", "weights"),
    ],
)
def test_a_wrong_nginx_is_caught_every_time(five, tmp_path, method, wrong):
    """Weights changed behind the lab's back, or another method than claimed: FAIL.

    A log that a stalled machine left undecided is UNSURE; as it says, another run settles it.
    """
    plain = "\n".join(f"    server backend-{number}:8000;" for number in (1, 2, 3))
    claim = f"""upstream llm {{
    zone llm 256k;
    {configs.DIRECTIVES[method]}
{plain}
    keepalive 8;
}}
proxy_http_version 1.1;
map "" $hash_key {{ default ""; }}
"""
    words = [
        settled(five.lab, method, claim, WRONG[wrong](claim), seed, tmp_path) for seed in range(20)
    ]

    assert words == ["FAIL"] * 20


def settled(lab, method, claim, text, seed, folder):
    """The word on what `text` makes nginx do; up to three runs, until it is not UNSURE."""
    count = {"random": 1000, "random_two": 400}.get(method, 250)
    plan = probes.plan(method, "", count, seed, concurrency=12)
    for _ in range(3):
        nginx.switch(lab, text)
        mark, began = nginx.log_size(lab), time.time()
        sender.run(workload.fixed(plan.requests, plan.concurrency), lab.door, timeout=120)
        log = nginx.log_with(lab, mark, count)
        clock = configs.doubt(lab, log, began)
        word = configs.judged(lab, claim, log, False, folder, clock).word
        if word != "UNSURE":
            break
    return word


def test_the_seeds_cover_what_they_should():
    """At least 200 configurations, 50 of them with failures, every method, every size."""
    found = [
        configs.config(seed, configs.EXACT, failing=seed % 4 == 0) for seed in range(GROUPS * EACH)
    ]

    assert len(found) >= 200
    assert sum("fail_timeout" in each.text for each in found) >= 50
    assert {each.method for each in found} == set(configs.EXACT)
    sizes = [each.text.count("server backend") for each in found]
    assert {1, 2, 3, 5} <= set(sizes)
    assert len({a.text for a in itertools.islice(found, 200)}) > 190
