"""Requests that nginx must not have sent to their servers by any method."""

from typing import Any

import pytest
from msgspec import structs

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Sticky, Upstream
from nginx_llm_lab.oracle import ORACLES
from nginx_llm_lab.verdict import judge


def hit(server: str, start: float, lasts: float = 0.01, *before: str) -> Hit:
    """An answer by a server, after others that refused."""
    tries = len(before)
    return Hit(
        (*before, server),
        200,
        start + lasts,
        lasts,
        upstream_status=(*[502] * tries, 200),
        upstream_connect_time=(*[None] * tries, 0.0),
        upstream_header_time=(*[None] * tries, lasts),
        upstream_response_time=(*[0.0] * tries, lasts),
    )


def why(hits: list[Hit], *servers: Server, method: str = "round_robin", **more: Any) -> str:
    """Why a log fails; empty where it does not."""
    upstream = Upstream(servers, method, key="$request_uri", measure="header", **more)
    verdict = judge(upstream, hits, sequential=False, alone=True)
    return verdict.why if verdict.word == "FAIL" else ""


@pytest.mark.parametrize("method", ORACLES)
def test_one_request_to_a_server_that_is_down_fails(method: str) -> None:
    """This holds for every method."""
    hits = [hit("a", 1), hit("b", 2)]

    assert (
        why(hits, Server("a"), Server("b", down=True), Server("c"), method=method)
        == "request 2 went to b, which is down"
    )


def test_a_draining_server_keeps_the_clients_that_sticky_binds() -> None:
    """Without `sticky` a request to it is a fact."""
    servers = Server("a"), Server("b", drain=True)
    bound = Sticky("cookie", ("$cookie_srv",))

    assert why([hit("b", 1)], *servers) == "request 1 went to b, which is draining"
    assert "draining" not in why([hit("b", 1)], *servers, sticky=bound)


def test_a_backup_needs_a_reason() -> None:
    """A failure of the only primary is one, for as long as its ban may last."""
    servers = Server("a"), Server("b", backup=True)
    needless = "request 1 went to b, a backup, while a was eligible"

    assert why([hit("b", 1)], *servers) == needless
    assert "backup" not in why([hit("b", 1, 0.01, "a"), hit("b", 5)], *servers)
    assert "request 2" in why([hit("b", 1, 0.01, "a"), hit("b", 50)], *servers)


def test_a_full_server_gets_no_more() -> None:
    """Only where the log proves that both others were open."""
    servers = Server("a", max_conns=2), Server("b")
    open_ones = [hit("a", 1, 3), hit("a", 1.5, 3)]

    fact = "request 3 went to a, which had max_conns=2 requests open"

    assert why([*open_ones, hit("a", 2, 1)], *servers) == fact
    assert "max_conns" not in why([*open_ones, hit("a", 3.99, 1)], *servers)


def test_a_banned_server_gets_none() -> None:
    """A second after its failure; in the last second of the ban it may be back."""
    servers = Server("a"), Server("b"), Server("c")
    failed = hit("b", 1, 0.01, "a")

    assert why([failed, hit("a", 2)], *servers) == (
        "request 2 went to a, which was banned after failing"
    )
    assert "banned" not in why([failed, hit("a", 11.5)], *servers)


def test_retries_that_break_a_rule_are_facts() -> None:
    """An answer that is not listed, a POST that was sent, more tries than allowed."""
    servers = Server("a"), Server("b"), Server("c")
    answered = structs.replace(
        hit("b", 1, 0.01, "a"),
        upstream_status=(500, 200),
        upstream_connect_time=(0.0, 0.0),
        upstream_header_time=(0.0, 0.01),
    )
    broken = structs.replace(
        answered, upstream_status=(504, 200), upstream_header_time=(None, 0.01)
    )
    posted = structs.replace(broken, request_method="POST")
    twice = hit("c", 1, 0.01, "a", "b")

    assert "an answer (500) that proxy_next_upstream does not list at a" in why(
        [answered], *servers
    )
    assert "was repeated" not in why([broken], *servers)
    assert "a POST had been sent at a" in why([posted], *servers)
    assert "3 times, 2 are allowed" in why([twice], *servers, next_upstream=NextUpstream(tries=2))
