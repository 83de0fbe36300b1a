"""The oracle's input for a logged request."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Sticky, Upstream
from nginx_llm_lab.verdict import replay

UPSTREAM = Upstream((Server("a"), Server("b")), name="llm")


def hit(status: int | None, connect: float | None, header: float | None) -> Hit:
    """A request to a that then went on to b."""
    return Hit(
        ("a", "b"),
        upstream_status=(status, 200),
        upstream_connect_time=(connect, 0.0),
        upstream_header_time=(header, 0.0),
        upstream_response_time=(0.3, 0.1),
    )


@pytest.mark.parametrize(
    ("logged", "fault"),
    [
        (hit(502, None, None), "refused"),
        (hit(502, 0.0, None), "error"),
        (hit(504, None, None), "connect_timeout"),
        (hit(504, 0.0, None), "timeout"),
        (hit(502, 0.0, 0.2), "http_502"),
        (hit(500, 0.0, 0.2), ""),
    ],
)
def test_a_fault_is_told_by_its_times(logged: Hit, fault: str) -> None:
    """No connect time: refused; no header time: broken; else an answer, a fault only if listed."""
    listed = NextUpstream(frozenset({"error", "timeout", "http_502"}))

    assert replay.fault(replace(UPSTREAM, next_upstream=listed), logged, 0) == fault


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, "refused"),
        ({"upstream_response_time": (0.301, 0.1)}, "error"),
        ({"request_method": "GET"}, "error"),
        ({"upstream_status": (504, 200)}, "timeout"),
    ],
)
def test_a_retried_post_whose_connection_was_reset_at_once_had_not_been_sent(
    changes: dict[str, Any], fault: str
) -> None:
    """nginx logs a connect time, then sees the reset; a GET it would have retried anyway."""
    reset = structs.replace(hit(502, 0.3, None), request_method="POST")

    assert replay.fault(UPSTREAM, structs.replace(reset, **changes), 0) == fault


def test_a_broken_answer_that_was_not_retried_had_a_bad_header():
    """Errors are listed and would have been; the log writes 502 for both."""
    last = Hit(("a",), upstream_status=(502,), upstream_connect_time=(0.0,))

    assert (
        replay.fault(UPSTREAM, structs.replace(last, upstream_header_time=(None,)), 0)
        == "invalid_header"
    )


def test_an_arrival_tells_faults_but_no_servers():
    """The first attempt failed after 0.3 s, the second did not; no name is in it."""
    arrival = replay.arrival(UPSTREAM, hit(502, None, None), lasting=False)

    assert arrival.faults == (("refused", 0.3), ("", 0.1))
    assert arrival.fail == {}


def test_the_upstreams_own_name_is_nobody():
    """nginx logs it for "no live upstreams", after the servers it tried."""
    assert replay.seen(UPSTREAM, Hit(("a", "llm"))) == (None, ("a",))
    assert replay.seen(UPSTREAM, Hit(("a", "b"))) == ("b", ("a", "b"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("$request_uri", b"/x?y=1"),
        ("$remote_addr", b"10.0.0.1"),
        ("$binary_remote_addr", b"\x0a\x00\x00\x01"),
        ("$http_x", b""),
    ],
)
def test_keys_that_every_log_has_are_known_without_the_hash_key(key: str, value: bytes) -> None:
    """Others are what the log says, empty if it says nothing."""
    logged = Hit(("a",), remote_addr="10.0.0.1", request_uri="/x?y=1")

    assert replay.key_of(replace(UPSTREAM, key=key), logged) == value


def test_the_first_lookup_variable_that_is_not_empty_binds():
    """A cookie or an argument, as it stands in the URI."""
    sticky = Sticky("route", ("$cookie_srv", "$arg_route"))
    upstream = replace(UPSTREAM, sticky=sticky)
    logged = Hit(("a",), request_uri="/?other=1&route=r%31")

    assert replay.sticky_of(upstream, logged) == "r%31"
    assert replay.sticky_of(upstream, structs.replace(logged, http_cookie="srv=s2")) == "s2"


def test_lookup_variables_are_read_as_nginx_reads_them():
    """Names count without case; an argument needs its "="."""
    upstream = replace(UPSTREAM, sticky=Sticky("route", ("$cookie_SRV", "$ARG_route")))

    assert replay.sticky_of(upstream, Hit(("a",), http_cookie="a=1; srv=s2; b")) == "s2"
    assert replay.sticky_of(upstream, Hit(("a",), request_uri="/?route&Route=r1")) == "r1"


def test_only_servers_that_resolve_change_their_order():
    """They come behind the others, in any order."""
    servers = (Server("a", resolve=True), Server("b"), Server("c", resolve=True))

    orders = [
        "".join(server.name for server in upstream.servers)
        for upstream in replay.orders(Upstream(servers))
    ]

    assert orders == ["bac", "bca"]


def test_a_key_that_every_log_has_is_read_from_its_own_variable():
    """The logged key is the one that the lab believes in; an alternative has another."""
    logged = Hit(("a",), hash_key="/chat", request_uri="/chat", remote_addr="10.0.0.7")

    keys = ("$request_uri", "$remote_addr", "$arg_user")
    values = [replay.key_of(replace(UPSTREAM, key=key), logged) for key in keys]

    assert values == [b"/chat", b"10.0.0.7", b"/chat"]
