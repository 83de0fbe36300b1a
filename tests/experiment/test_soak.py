"""A soak's steps follow from its seed."""

from collections import Counter
from itertools import islice

from nginx_llm_lab.experiment import soak
from nginx_llm_lab.stack import faults

NAMES = ("backend-1", "backend-2", "backend-3")


def test_the_same_seed_does_the_same_steps() -> None:
    """A soak that failed is replayed from the seed that it printed."""
    once, again = (list(islice(soak.steps(7, NAMES), 200)) for _ in range(2))
    other = list(islice(soak.steps(8, NAMES), 200))

    assert once == again
    assert once != other


def test_random_steps_leave_nothing_out() -> None:
    """Every fault, switches, reloads, all backends at once, and nginx itself."""
    found = list(islice(soak.steps(1, NAMES), 1000))

    assert {step.do for step in found} >= {"reload", "use", *faults.kinds("backend-1")}
    assert {"all", "nginx", *NAMES} <= {step.target for step in found}


def test_a_proof_has_exactly_the_steps_it_names() -> None:
    """20 kills are 20 kills, in an order that the seed decides."""
    counts = {"kill": 20, "reload": 50, "use": 50}

    found = soak.steps_of(counts, 3, NAMES)

    assert Counter(step.do for step in found) == counts
    assert found == soak.steps_of(counts, 3, NAMES)
    assert found != soak.steps_of(counts, 4, NAMES)


def test_a_step_reads_as_a_person_would_say_it() -> None:
    """The line that a soak prints before it does it."""
    assert str(soak.Step("kill", "backend-2", 1.25)) == "kill backend-2 for 1.2 s"
    assert str(soak.Step("use", "round_robin", weights=(3, 2, 1))) == "use round_robin 3,2,1"
