"""Every fault under GETs, POSTs and streams: each request has one fate, and the split comes back.

The steps run by method in `soak`, which accounts for every request; tests/heavy has all faults
by all of these methods.
"""

import pytest

from lab import compose, faults, soak
from lab.errors import LabError

# What may become of a request that a fault concerns, beside being answered once, late or not.
# GET, POST and stream failures that the fault cannot cause are not in its row.
MAY = {
    "kill": {"GET": {"answered after a retry", "executed twice"}, "POST": {"failed"}},
    "stop": {"GET": {"answered after a retry", "executed twice"}, "POST": {"failed"}},
    "restart": {"GET": {"answered after a retry", "executed twice"}, "POST": {"failed"}},
    "cut": {"GET": {"answered after a retry"}},
    "pause": {},
    "slow": {},
    "hang": {},
    "refuse_health": {},
    "error_rate": {"GET": {"failed"}, "POST": {"failed"}},
    "drop": {"GET": {"failed"}, "POST": {"failed"}},
    "malformed_json": {"POST": {"failed"}},
}


def allowed(kind, sort, fate):
    """Whether a fault may do that to a request; connections refused are retried for all."""
    row = MAY[kind]
    refused = kind in ("kill", "stop", "restart", "cut") and fate == "answered after a retry"
    return refused or fate in row.get("POST" if sort == "stream" else sort, set())


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ("round_robin", ("kill", "error_rate")),
        ("least_conn", ("pause", "drop")),
        ("hash", ("cut", "malformed_json")),
    ],
)
def test_every_request_of_a_fault_has_an_explained_fate(lab, method, kinds):
    """No riddle, no POST twice; after each mend the split is as predicted in fail_timeout + 1 s."""
    steps = [soak.Step("use", method), *(soak.Step(kind, "backend-2", 0.4) for kind in kinds)]

    report = soak.soak(lab.lab, 600, seed=5, planned=steps, rate=120)

    assert report.holds, report
    assert len(report.recoveries) == len(kinds)
    told = [f for f in report.ledger.fates if f.kind not in ("answered once", "unexplained")]
    wrong = [
        str(fate)
        for fate in told
        if not any(
            f"{kind} of" in fate.reason and allowed(kind, fate.sort, fate.kind) for kind in kinds
        )
    ]
    assert wrong == []
    assert report.ledger.of("executed twice", "POST") == ()
    assert report.ledger.of("executed twice", "stream") == ()


def test_nginx_and_all_backends_come_back(lab):
    """Killed, every backend at once, nginx itself: whatever failed did so for that reason."""
    steps = [soak.Step("kill", "all", 0.3), soak.Step("kill", "nginx", 0.3)]

    report = soak.soak(lab.lab, 600, seed=6, planned=steps, rate=60)

    assert report.holds, report
    blamed = {fate.reason.split(": ")[0] for fate in report.ledger.of("failed")}
    assert {"broken off by kill of nginx", "no live upstreams"} & blamed


def test_a_restarted_backend_has_another_address_and_nginx_the_old_one_until_healed(lab):
    """Heal reloads nginx for that, and only for that: a kill keeps the address and the bans."""
    lab.use("round_robin")
    before = compose.addresses(lab.lab)

    faults.fault(lab.lab, "backend-1", "restart")
    moved = compose.addresses(lab.lab)
    done = faults.heal(lab.lab)
    faults.fault(lab.lab, "backend-1", "kill")
    after_kill = faults.heal(lab.lab)

    assert set(moved) - set(before)
    assert done == ["nginx: reloaded, for a backend has another address"]
    assert after_kill == ["backend-1: started"]
    assert faults.heal(lab.lab) == []


def test_what_is_broken_cannot_be_broken_so_again(lab):
    """It is said which one is in which state, and how to mend it."""
    faults.fault(lab.lab, "backend-3", "hang")
    try:
        with pytest.raises(LabError, match="backend-3 has hang already") as hangs:
            faults.fault(lab.lab, "backend-3", "hang")
        faults.fault(lab.lab, "backend-3", "cut")
        with pytest.raises(LabError, match="backend-3 is cut off already"):
            faults.fault(lab.lab, "backend-3", "kill")
        with pytest.raises(LabError, match='no backend "backend-9"'):
            faults.fault(lab.lab, "backend-9", "kill")
    finally:
        done = faults.heal(lab.lab)

    assert hangs.value.hint == "lab heal"
    assert done == ["backend-3: has its network back", "backend-3: behaves"]
