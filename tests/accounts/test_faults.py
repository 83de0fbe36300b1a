"""A timeline is converted to the faults that explain failures."""

from nginx_llm_lab.accounts.fates import Fault
from nginx_llm_lab.accounts.faults import faults_of, rules_of
from nginx_llm_lab.evidence.timeline import Done, Event, Tenure, Timeline
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Upstream

A, B, C = "backend-1", "backend-2", "backend-3"


def timeline(*done: Done, mended: float = 200.0) -> Timeline:
    """A run that began at second 100 with three backends."""
    homes = [Tenure(f"{name}:1", name, 100.0) for name in (A, B, C)]
    return Timeline(100.0, (A, B, C), homes, [*done], mended=mended)


def event(at: float, do: str, backend: str = "all", kind: str = "", error: str = "") -> Done:
    """Something that took half a second."""
    return Done(Event(at, do, backend, kind), at, at + 0.5, error)


def test_a_fault_lasts_from_its_injection_to_the_end_of_its_repair() -> None:
    """A heal of its backend or of all ends it; without a heal it lasts to the end of the run."""
    run = timeline(
        event(1, "fault", A, "kill"),
        event(2, "fault", B, "pause"),
        event(3, "fault", "nginx", "stop"),
        event(5, "heal", A),
        event(7, "heal"),
        event(8, "fault", C, "cut"),
    )

    assert faults_of(run) == [
        Fault(A, "kill", 101.0, 105.5),
        Fault(B, "pause", 102.0, 107.5),
        Fault("nginx", "stop", 103.0, 107.5),
        Fault(C, "cut", 108.0, 200.0),
    ]


def test_a_failed_event_injects_and_repairs_nothing() -> None:
    """A second kill is refused; a reload is no fault."""
    run = timeline(
        event(1, "fault", A, "kill"),
        event(2, "fault", A, "kill", error="backend-1 is exited already"),
        event(3, "heal", A, error="not healthy"),
        event(4, "reload"),
    )

    assert faults_of(run) == [Fault(A, "kill", 101.0, 200.0)]


def test_a_removed_backend_counts_as_a_fault() -> None:
    """The fleet goes from three to one to two: then the second backend is available again."""
    run = timeline(
        Done(Event(1, "scale", backends=1), 1.0, 2.0),
        Done(Event(3, "scale", backends=2), 3.0, 4.0),
    )

    assert faults_of(run) == [Fault(B, "removal", 101.0, 104.0), Fault(C, "removal", 101.0)]


def test_the_rules_are_those_of_the_config() -> None:
    """The longest fail_timeout, max_conns, the servers that are down, and non_idempotent."""
    servers = (
        Server(f"{A}:8000", fail_timeout=3, max_conns=2),
        Server(f"{B}:8000", fail_timeout=7, down=True),
    )
    again = NextUpstream(frozenset({"error", "non_idempotent"}))

    rules = rules_of(Upstream(servers, next_upstream=again), timeline())

    assert (rules.servers, rules.fail_timeout, rules.non_idempotent) == ({A, B, C}, 7, True)
    assert (rules.max_conns, rules.down) == ({A: 2}, {B})
    assert not rules_of(Upstream(servers), timeline()).non_idempotent
