"""A live nginx that runs something else than the lab believes: FAIL, with the truth named."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from nginx_llm_lab.accounts.outcome import Outcome
from nginx_llm_lab.evidence import ab_report
from nginx_llm_lab.experiment import fleet, run
from nginx_llm_lab.experiment.collect import Sent
from nginx_llm_lab.experiment.run import Load
from nginx_llm_lab.nginxconf import methods
from nginx_llm_lab.nginxconf.methods import Choice
from nginx_llm_lab.stack import nginx
from nginx_llm_lab.stack.compose import Lab
from nginx_llm_lab.traffic import ab as traffic
from nginx_llm_lab.traffic import probes, sender
from nginx_llm_lab.word import Word

RUNS = int(os.environ.get("LAB_POWER_RUNS", "1"))  # of each method; 20 take half an hour
NAMED = 0.9  # of the FAILs name what nginx really runs
ONE_WORKER = "no zone (one worker took every request)"


@dataclass(frozen=True, slots=True)
class Wrong:
    """A change to what nginx runs, and the alternative that a FAIL should name.

    `claimed` are the weights that the lab believes.
    """

    looks: str
    change: Mapping[str, Any]
    claimed: tuple[int, ...] = ()


HEAVIER = Wrong("weight 2 instead of 1 at backend-1", {"weights": (2, 1, 1)})
IGNORED = Wrong("weights ignored", {"weights": ()}, (3, 2, 1))
SWAPPED = Wrong("weights of backend-1 and backend-3 swapped", {"weights": (1, 2, 3)}, (3, 2, 1))
DOWN = Wrong("backend-3 down", {"parameters": {"backend-3": "down"}})
BACKWARDS = Wrong(
    "servers in the order backend-3, backend-2, backend-1",
    {"backends": ("backend-3", "backend-2", "backend-1")},
)


def instead(method: str, **change: object) -> Wrong:
    """nginx runs another method, which a FAIL is to name."""
    return Wrong(method, {"method": method, "key": "", **change})


def no_zone(method: str) -> Wrong:
    """nginx's workers share no state."""
    return Wrong(f"{method} without zone, 2 workers", {"zone": False})


def another_key(method: str) -> Wrong:
    """nginx hashes the client's address instead of the URI."""
    return Wrong(f"{method} of $remote_addr", {"key": "$remote_addr"})


WRONG: Mapping[str, Sequence[Wrong]] = {
    "round_robin": (HEAVIER, instead("random"), no_zone("round_robin"), DOWN),
    "least_conn": (HEAVIER, instead("round_robin"), no_zone("least_conn"), DOWN),
    "least_time": (HEAVIER, instead("round_robin"), no_zone("least_time"), DOWN),
    "ip_hash": (HEAVIER, instead("round_robin"), BACKWARDS, DOWN),
    "hash": (HEAVIER, instead("hash_consistent"), another_key("hash"), DOWN),
    "hash_consistent": (HEAVIER, instead("hash"), another_key("hash_consistent"), DOWN),
    "prompt_prefix": (HEAVIER, instead("round_robin"), IGNORED, DOWN),
    "random": (SWAPPED, instead("round_robin"), IGNORED, DOWN),
    "random_two": (SWAPPED, instead("random"), instead("least_conn"), DOWN),
    "sticky": (HEAVIER, Wrong("no sticky", {"method": "round_robin"}), IGNORED, DOWN),
}


def run_behind_its_back(lab: Lab, method: str, wrong: Wrong, seed: int) -> Outcome:
    """Let the lab switch to its claim, then nginx to something else, and judge the traffic.

    nginx is reloaded with the other upstream.conf once the lab has noted what it believes.
    """
    claim = fleet.choose(lab, method, weights=wrong.claimed)
    truth = with_other_upstream(claim, replace(claim, **wrong.change))
    count = run.requests_needed(claim)
    load = by_ab(lab, count) if method == "round_robin" else generated(lab, method, count, seed)

    def send() -> Sent:
        nginx.switch(lab, truth, trace=nginx.tracing(lab))
        return load.send()

    traced = not load.sequential and run.is_traced(lab, run.Source.AUTO, count)
    fleet.use(lab, claim, trace=traced)
    return run.observe(lab, claim, replace(load, send=send))


def by_ab(lab: Lab, count: int) -> Load:
    """ApacheBench as `lab run round_robin` calls it: a connection for each request."""

    def send() -> Sent:
        printed = traffic.ab(lab, traffic.Ab(count))
        return Sent(ab_report.parse(printed).complete_requests, ab=printed)

    return Load(f"ab -n {count}", False, send)


def generated(lab: Lab, method: str, count: int, seed: int) -> Load:
    """The requests that `lab run` generates for a method."""
    plan = probes.plan(method, methods.method(method).key, count, seed)

    def send() -> Sent:
        records = sender.run(run.fixed(plan), lab.door)
        run.refuse_failures(records)
        return Sent(len(records), tuple(records))

    returning = len(plan.sessions) - len(set(plan.sessions))
    return Load(f"{count} requests", plan.concurrency == 1, send, returning)


def with_other_upstream(claim: Choice, truth: Choice) -> str:
    """The claim's upstream.conf with the truth's upstream block, as an operator would edit it."""
    block = re.compile(r"^upstream .*?^}$", re.MULTILINE | re.DOTALL)
    (edited,) = block.findall(methods.render(truth))
    return block.sub(lambda _: edited, methods.render(claim))


@pytest.mark.parametrize("method", WRONG)
def test_a_wrong_nginx_fails_and_is_named(five, say, method: str) -> None:
    """Weights, method, no zone or key or order, a backend that is down: each in turn."""
    if nginx.version(five.lab) < methods.method(method).needs:
        pytest.skip(f"{method} needs nginx {fleet.dotted(methods.method(method).needs)}")
    fleet.up(five.lab, 3)
    words: Counter[str] = Counter()
    misnamed: list[str] = []
    first = list(WRONG).index(method)  # one run of each method shows every kind of change
    for seed in range(first, first + RUNS):
        wrong = WRONG[method][seed % len(WRONG[method])]
        verdict = run_behind_its_back(five.lab, method, wrong, seed).verdict
        if "zone" in wrong.change and ONE_WORKER in verdict.why:
            continue  # then nginx did what it does with a zone, and the verdict says so
        words[verdict.word] += 1
        if not verdict.why.endswith(f"looks like {wrong.looks}"):
            misnamed.append(f"{wrong.looks}: {verdict}")
    runs = words.total()
    say(f"{method}: {words[Word.FAIL]} of {runs} FAIL, {runs - len(misnamed)} name the truth")

    assert words == {Word.FAIL: runs}, misnamed
    assert len(misnamed) <= (1 - NAMED) * runs, misnamed
