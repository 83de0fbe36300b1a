"""What a fault is refused for, and what a backend is told; breaking is shown in tests/live."""

from unittest.mock import Mock

import docker.errors
import pytest

from nginx_llm_lab import fault_kinds
from nginx_llm_lab.backends.llm.behaviour import HEALTHY, parse
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.fault_kinds import By
from nginx_llm_lab.stack import faults
from nginx_llm_lab.stack.compose import Lab

LAB = Lab("no-such-lab")


@pytest.mark.parametrize("kind", fault_kinds.names(By.BACKEND))
def test_every_backend_fault_is_a_valid_behaviour(kind: str) -> None:
    """What the behaviour port is told is a behaviour, and not the healthy one."""
    assert parse(faults.behaviour_of(kind)) != HEALTHY


def test_a_value_sets_the_fault_s_strength() -> None:
    """Slow by a factor, errors by a share, cut off after so many tokens."""
    assert faults.behaviour_of("slow", 10.0) == {"slow": 10.0}
    assert faults.behaviour_of("error_rate", 0.5) == {"error_rate": 0.5}
    assert faults.behaviour_of("drop", 3.0) == {"drop_rate": 1.0, "drop_after_tokens": 3}
    assert faults.behaviour_of("drop", 0.0) == {"drop_rate": 1.0, "drop_after_tokens": 0}


@pytest.mark.parametrize(
    ("service", "kind", "value", "says"),
    [
        ("backend-1", "sneeze", None, 'no fault "sneeze" for backend-1'),
        ("nginx", "slow", None, 'no fault "slow" for nginx'),
        ("backend-1", "reload", None, 'no fault "reload" for backend-1'),
        ("backend-1", "hang", 2.0, "hang takes no value, got 2"),
        ("backend-1", "kill", 9.0, "kill takes no value, got 9"),
    ],
)
def test_an_unknown_fault_is_wrong_usage(
    service: str, kind: str, value: float | None, says: str
) -> None:
    """It is refused before anything is asked of the engine."""
    with pytest.raises(UsageError) as caught:
        faults.fault(LAB, service, kind, value)

    assert caught.value.message == says
    assert caught.value.hint


def test_every_fault_of_the_engine_has_an_action() -> None:
    """The table says who does a fault; what Docker does has a function here."""
    assert set(faults.ACTIONS) == set(fault_kinds.names(By.ENGINE))


def test_a_pause_is_tried_again_while_the_kernel_cannot_freeze() -> None:
    """On a busy machine a health check may begin just then; other errors are raised at once."""
    busy = docker.errors.APIError("pause", explanation="OCI runtime pause failed: unable to freeze")
    container = Mock(labels={"com.docker.compose.service": "backend-2"})
    container.pause.side_effect = [busy, busy, None]

    faults.ACTIONS["pause"](LAB, container)

    assert container.pause.call_count == 3
    container.pause.side_effect = docker.errors.APIError("pause", explanation="no such container")
    with pytest.raises(docker.errors.APIError):
        faults.ACTIONS["pause"](LAB, container)
