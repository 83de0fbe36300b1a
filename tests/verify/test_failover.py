"""Which servers must answer while others refuse connections."""

from dataclasses import replace

import pytest

from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Upstream
from nginx_llm_lab.verify import failover
from nginx_llm_lab.verify.failover import Drill

TWO = (Server("a"), Server("b"))


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        (TWO, [(("a",), ("b",))]),
        ((*TWO, Server("c", backup=True)), [(("a",), ("b",)), (("a", "b"), ("c",))]),
        ((Server("a"), Server("c", backup=True)), [(("a",), ("c",))]),
        ((Server("a", down=True), Server("b"), Server("c")), [(("b",), ("c",))]),
        ((Server("a"), Server("b", down=True)), []),
        ((Server("a"),), []),
    ],
)
def test_drills_close_one_server_then_all_primary_ones(
    servers: tuple[Server, ...], expected: list[tuple[tuple[str, ...], tuple[str, ...]]]
) -> None:
    """A server that is down is neither closed nor expected to answer."""
    drills = failover.drills(Upstream(servers))

    assert [(drill.closed, drill.heirs) for drill in drills] == expected


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        (NextUpstream(frozenset()), "proxy_next_upstream has no error"),
        (NextUpstream(tries=1), "proxy_next_upstream_tries 1"),
    ],
)
def test_without_a_retry_requests_may_be_lost(rules: NextUpstream, rule: str) -> None:
    """The config allows it: the lost requests are counted, and the verdict is not FAIL."""
    (drill,) = failover.drills(replace(Upstream(TWO), next_upstream=rules))

    text, fault = failover.outcome(drill, [("b", 200), ("", 502), ("b", 200)])

    assert (text, fault) == (f"without a: b 2 of 3, 1 lost ({rule})", "")


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([("b", 200), ("b", 200)], ""),
        ([("b", 200), ("", 403)], ""),
        ([("b", 200), ("", 502)], "1 requests were lost, although the next server had to be tried"),
        ([("a", 200)], "a answered while it refused connections"),
    ],
)
def test_what_nginx_must_not_do_is_a_fault(answers: list[tuple[str, int]], fault: str) -> None:
    """An answer that nginx gives by itself, without a server, is not a fault."""
    drill = Drill(("a",), ("b",), retried=True, rule="proxy_next_upstream error")

    assert failover.outcome(drill, answers)[1] == fault
