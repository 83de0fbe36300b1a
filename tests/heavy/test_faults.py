"""The long test: kills, pauses, cuts, reloads and switches under traffic, nothing unexplained.

LAB_SOAK=10 gives the full one: 200,000 requests, 20 kills, 20 pauses, 20 cuts, 50 reloads and 50
switches, in about 11 minutes. The default is a tenth of it.
"""

import os

import pytest

from nginx_llm_lab.experiment import soak
from nginx_llm_lab.stack import compose
from tests.live.test_faults import unexplained

SIZE = int(os.environ.get("LAB_SOAK", "1"))
COUNTS = {"kill": 2, "pause": 2, "cut": 2, "reload": 5, "use": 5}
KINDS = (
    *("kill", "stop", "restart", "pause", "cut"),
    *("slow", "error_rate", "drop", "hang", "malformed_json", "refuse_health"),
)


def names(lab):
    """The backends of a lab."""
    return [compose.service(container) for container in compose.backend_containers(lab.lab)]


def planned(lab, size, seed):
    """The steps of a proof, so many times the counts."""
    return soak.steps_of({kind: size * n for kind, n in COUNTS.items()}, seed, names(lab))


def test_only_posts_in_flight_on_the_broken_backend_are_lost(five):
    """0 unexplained, 0 failed GETs, no POST twice, every split recovered, memory flat."""
    report = soak.soak(
        five.lab, 3600, seed=20261122, planned=planned(five, SIZE, 20261122), rate=400
    )

    assert report.holds, str(report)
    assert report.ledger.of("failed", "GET") == ()
    for sort in ("POST", "stream"):
        assert report.ledger.of("executed twice", sort) == ()
        assert {f.reason.split(" of ")[0] for f in report.ledger.of("failed", sort)} <= {
            "broken off by kill"
        }


def test_with_non_idempotent_no_post_is_lost_and_each_double_is_counted(five):
    """Requests that would have failed are executed twice; streams that had begun stay cut off."""
    report = soak.soak(
        five.lab,
        3600,
        seed=2,
        planned=planned(five, SIZE, 2),
        rate=400,
        next_upstream="error timeout non_idempotent",
    )

    assert report.holds, str(report)
    assert report.ledger.of("failed", "GET") == ()
    assert report.ledger.of("failed", "POST") == ()


@pytest.mark.parametrize("method", ["least_conn", "round_robin", "hash"])
def test_every_fault_has_explained_fates(five, method):
    """One after another: each request has one fate, each split comes back."""
    steps = [soak.Step("use", method), *(soak.Step(kind, "backend-2", 0.4) for kind in KINDS)]

    report = soak.soak(five.lab, 3600, seed=3, planned=steps, rate=400)

    assert report.holds, str(report)
    assert [recovery.step.split(" ")[0] for recovery in report.recoveries] == list(KINDS)
    assert unexplained(report.ledger, KINDS) == []


@pytest.mark.parametrize("target", ["all", "nginx"])
def test_nginx_and_all_backends_come_back(five, target):
    """Killed under traffic: whatever failed did so for that reason, and the split comes back."""
    report = soak.soak(five.lab, 600, seed=6, planned=[soak.Step("kill", target, 0.5)], rate=300)

    assert report.holds, str(report)
    failed = report.ledger.of("failed")
    assert failed
    killed = {"all": "kill of backend-", "nginx": "kill of nginx"}[target]
    assert all(killed in fate.reason for fate in failed)
