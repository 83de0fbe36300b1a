"""Random configurations through real nginx while requests overlap: right and wrong ones.

LAB_OVERLAP_RUNS=25 gives the full proof, of 25 runs each; the default is a third of it.
"""

import os
import time

import pytest

from nginx_llm_lab.stack import nginx
from nginx_llm_lab.traffic import probes, sender, workload
from nginx_llm_lab.word import Word
from tests.heavy import configs

RUNS = int(os.environ.get("LAB_OVERLAP_RUNS", "8"))


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_counts_are_exact_when_requests_overlap(five, tmp_path, seed):
    """Twenty at a time: turns are exact in number, keys one by one."""
    config = configs.config(seed, ("round_robin", "ip_hash", "hash", "hash_consistent"))
    plan = configs.requests(config, 200)

    at_once = probes.Plan(plan.requests, 20, plan.sessions)
    verdict = configs.observe(five.lab, config, at_once, tmp_path)

    assert verdict.word == "PASS", f"seed {seed}: {verdict}\n{config.text}"


BY_CHANCE_OR_LOAD = ("random", "random_two", "least_conn", "least_time")


def gated(five, method):
    """Skip where this nginx has not got the method."""
    if method == "least_time" and nginx.version(five.lab) < (1, 31, 0):
        pytest.skip("least_time needs nginx 1.31.0")


@pytest.mark.parametrize("method", BY_CHANCE_OR_LOAD)
def test_a_right_nginx_is_never_called_wrong(five, tmp_path, method):
    """The methods by chance and by load: no FAIL."""
    gated(five, method)
    words = []
    for seed in range(2000, 2000 + RUNS):
        config = configs.config(seed, (method,))
        count, at_once = {"random": (1000, 12), "random_two": (200, 6)}.get(method, (200, 12))
        plan = probes.plan(method, "", count, seed, concurrency=at_once)
        words.append(configs.observe(five.lab, config, plan, tmp_path).word)

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
def test_a_wrong_nginx_always_fails_or_is_unsure(five, tmp_path, method, wrong):
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
        settled(five.lab, method, claim, WRONG[wrong](claim), seed, tmp_path)
        for seed in range(RUNS)
    ]

    assert words == ["FAIL"] * RUNS


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
