"""Every fault under GETs, POSTs and streams: each request has one fate, and the split comes back.

Each of three methods has its share of the kinds; tests/heavy has all kinds by all methods.
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
BY_METHOD = {
    "round_robin": ("kill", "error_rate", "hang", "stop"),
    "least_conn": ("pause", "drop", "restart", "slow"),
    "hash": ("cut", "malformed_json", "refuse_health"),
}


def allowed(kind, fate):
    """Whether a fault may do that to a request."""
    sort = "POST" if fate.sort == "stream" else fate.sort
    retried = kind in REFUSE and fate.kind == "answered after a retry"
    return retried or fate.kind in MAY[kind].get(sort, set())


@pytest.mark.parametrize("method", BY_METHOD)
def test_every_request_of_a_fault_has_an_explained_fate(lab, method):
    """No POST is executed twice; fail_timeout + 1 s after each repair the split is as predicted."""
    kinds = BY_METHOD[method]
    steps = [soak.Step("use", method), *(soak.Step(kind, "backend-2", 0.4) for kind in kinds)]

    report = soak.soak(lab.lab, 600, seed=5, planned=steps, rate=400)

    assert report.holds, str(report)
    assert [each.step.split(" ")[0] for each in report.recoveries] == list(kinds)
    assert {call.sort for call in report.ledger.fates} == {"GET", "POST", "stream"}
    told = [fate for fate in report.ledger.fates if fate.kind != "answered once"]
    wrong = [
        str(fate)
        for fate in told
        if not any(f"{kind} of" in fate.reason and allowed(kind, fate) for kind in kinds)
    ]
    assert wrong == []


def test_nginx_is_reloaded_only_where_a_backend_has_moved(lab):
    """Backends that ended together are started in the order of their addresses, to keep them."""
    before = compose.addresses(lab.lab)

    faults.fault(lab.lab, "all", "kill")
    done = faults.heal(lab.lab)

    moved = compose.addresses(lab.lab) != before
    reloads = ["nginx: reloaded, for a backend has another address"] * moved
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
    assert done == ["nginx: reloaded, for a backend has another address"]
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
