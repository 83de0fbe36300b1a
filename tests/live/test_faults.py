"""Every fault under GETs, POSTs and streams: each request has one fate, and the split recovers.

Two kinds by one method; tests/heavy has all kinds, and three methods.
"""

import pytest

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.experiment import fleet, soak
from nginx_llm_lab.report import tables
from nginx_llm_lab.stack import compose, faults, sdk
from nginx_llm_lab.traffic import ab

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
REFUSE = ("kill", "stop", "restart", "cut")  # whoever is refused is retried, of any sort
KINDS = ("kill", "error_rate")


def allowed(kind, fate):
    """Whether a fault may do that to a request."""
    sort = "POST" if fate.sort == "stream" else fate.sort
    retried = kind in REFUSE and fate.kind == "answered after a retry"
    return retried or fate.kind in MAY[kind].get(sort, set())


def unexplained(ledger, kinds):
    """The requests that became what none of the faults may do to them."""
    return [
        str(fate)
        for fate in ledger.fates
        if fate.kind != "answered once"
        and not any(f"{kind} of" in fate.reason and allowed(kind, fate) for kind in kinds)
    ]


def test_every_request_of_a_fault_has_an_explained_fate(lab):
    """No POST is executed twice; fail_timeout + 1 s after each repair the split is as predicted."""
    steps = [soak.Step("use", "round_robin")]
    steps += [soak.Step(kind, "backend-2", 0.4) for kind in KINDS]

    report = soak.soak(lab.lab, 600, seed=5, planned=steps, rate=400)

    assert report.holds, str(report)
    assert [recovery.step.split(" ")[0] for recovery in report.recoveries] == list(KINDS)
    assert {call.sort for call in report.ledger.fates} == {"GET", "POST", "stream"}
    assert unexplained(report.ledger, KINDS) == []


def test_nginx_is_reloaded_only_where_a_backend_has_moved(lab):
    """Backends that ended together are started in the order of their addresses, to keep them."""
    before = compose.addresses(lab.lab)

    faults.fault(lab.lab, "all", "kill")
    done = faults.heal(lab.lab)

    moved = compose.addresses(lab.lab) != before
    reloads = ["nginx: reloaded, because a backend has another address"] * moved
    assert done == [*(f"backend-{number}: started" for number in (1, 2, 3)), *reloads]


def test_a_lab_that_was_stopped_shows_its_state_and_is_healed(lab):
    """Also nginx and the container in which ab runs."""
    for name in ("nginx", "load"):
        sdk.handle(compose.container(lab.lab, name)).stop(timeout=1)

    stopped = fleet.status(lab.lab)
    with pytest.raises(LabError, match="load is exited"):
        ab.ab(lab.lab, ab.Ab())
    done = faults.heal(lab.lab)

    assert stopped["nginx"] is None
    assert "(nginx is down)" in tables.status(stopped)
    assert done[:1] == ["load: started"]
    assert "nginx: started" in done
    assert fleet.status(lab.lab)["nginx"]


def test_a_restarted_backend_has_another_address_and_nginx_the_old_one_until_healed(lab):
    """Heal reloads nginx for that, and a second heal finds nothing to do."""
    lab.use("round_robin")
    before = compose.addresses(lab.lab)

    faults.fault(lab.lab, "backend-1", "restart")
    moved = compose.addresses(lab.lab)
    done = faults.heal(lab.lab)

    assert set(moved) - set(before)
    assert done == ["nginx: reloaded, because a backend has another address"]
    assert faults.heal(lab.lab) == []


def test_a_fault_cannot_be_injected_twice(lab):
    """The error names the service and its state, and how to repair it."""
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
    assert done == ["backend-3: reconnected to the network", "backend-3: behaviour reset"]
