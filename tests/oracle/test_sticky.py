"""Requests that are bound to a server."""

from hashlib import md5
from itertools import repeat

import pytest

from nginx_llm_lab.nginxconf.model import Server, Sticky, Upstream
from nginx_llm_lab.oracle import Arrival, predict
from nginx_llm_lab.oracle.base import sid
from tests.oracle.strategies import servers_of

COOKIE = Sticky("cookie", ("$cookie_srv",))
LEARN = Sticky("learn", ("$cookie_id",), ("$upstream_cookie_id",))


def upstream_of(method: str = "round_robin", sticky: Sticky = COOKIE, *last: Server) -> Upstream:
    """Servers a, b and c with their names as routes, and more behind them."""
    servers = tuple(Server(name, route=name) for name in "abc")
    return Upstream((*servers, *last), method, sticky=sticky)


@pytest.mark.parametrize(
    "method",
    ["round_robin", "least_conn", "ip_hash", "hash", "hash_consistent", "random", "least_time"],
)
def test_a_bound_request_goes_to_its_server(method: str):
    """This holds for every method."""
    assert servers_of(upstream_of(method), *repeat(Arrival(key=b"k", sticky="c"), 5)) == "ccccc"


def test_an_unknown_id_takes_its_turn():
    """The request is picked like one without an id."""
    assert servers_of(upstream_of(), *repeat(Arrival(sticky="z"), 4)) == "abca"


def test_a_bound_request_counts_against_its_server():
    """Two bound to a, and the next new clients go to b and c; debt ends at one round."""
    bound = repeat(Arrival(sticky="a"), 2)

    assert servers_of(upstream_of(), *bound, *repeat(Arrival(), 4)) == "aabcab"


def test_debt_is_bounded_to_one_round():
    """Nine bound requests leave new clients no worse off than two."""
    few = servers_of(upstream_of(), *repeat(Arrival(sticky="a"), 2), *repeat(Arrival(), 9))
    many = servers_of(upstream_of(), *repeat(Arrival(sticky="a"), 99), *repeat(Arrival(), 9))

    assert few[2:] == many[99:]


def test_other_methods_do_not_count_bound_requests():
    """Under least_conn the turns go on as if nothing had been."""
    bound = repeat(Arrival(sticky="a"), 2)

    assert servers_of(upstream_of("least_conn"), *bound, *repeat(Arrival(), 3)) == "aaabc"


def test_a_draining_server_keeps_its_own_clients():
    """Other clients are not sent there."""
    upstream = upstream_of("round_robin", COOKIE, Server("d", route="d", drain=True))

    assert servers_of(upstream, Arrival(sticky="d"), *repeat(Arrival(), 4))[0] == "d"
    assert "d" not in servers_of(upstream, *repeat(Arrival(), 8))


def test_a_down_server_loses_its_clients():
    """They take turns like anybody."""
    upstream = upstream_of("round_robin", COOKIE, Server("d", route="d", down=True))

    assert servers_of(upstream, Arrival(sticky="d")) == "a"


def test_a_bound_request_that_fails_goes_elsewhere():
    """Its server was tried already."""
    (pick,) = predict(upstream_of(), [Arrival(sticky="b", fail={"b": "refused"})])

    assert pick.attempts == ("b", "a")


def test_the_id_is_the_md5_of_the_address():
    """Of what $upstream_addr shows; a name without a port has port 80."""
    expected = md5(b"10.0.0.1:80", usedforsecurity=False).hexdigest()

    assert sid(Server("llm"), "10.0.0.1:80") == expected
    assert sid(Server("10.0.0.1"), "10.0.0.1") == expected
    assert sid(Server("10.0.0.1", route="r1"), "10.0.0.1:80") == "r1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:080", "10.0.0.1:80"),
        ("[0:0::0001]:8000", "[::1]:8000"),
        ("[::0102:0304]", "[::1.2.3.4]:80"),
        ("UNIX:/run/a.sock", "UNIX:/run/a.sock"),
    ],
)
def test_the_address_is_the_one_that_nginx_prints(text: str, address: str):
    """The id does not depend on how the server line writes it."""
    assert sid(Server(text), text) == md5(address.encode(), usedforsecurity=False).hexdigest()


def test_a_name_is_bound_by_the_address_it_resolves_to():
    """The ids are those of the addresses given."""
    upstream = Upstream((Server("a"), Server("b")), sticky=COOKIE)
    wanted = md5(b"10.0.0.2:80", usedforsecurity=False).hexdigest()
    addresses = {"a": ("10.0.0.1:80",), "b": ("10.0.0.2:80",)}

    picks = predict(upstream, repeat(Arrival(sticky=wanted), 2), addresses)

    assert [pick.server for pick in picks] == ["b", "b"]


def test_a_session_is_learnt_from_an_answer():
    """The first answer creates it; later requests with it follow."""
    first = Arrival(learnt="s1")

    assert servers_of(upstream_of(sticky=LEARN), first, *repeat(Arrival(sticky="s1"), 3)) == "aaaa"


def test_a_session_moves_with_its_request():
    """Its server refused, so the one that answered has it now."""
    arrivals = [Arrival(learnt="s1"), Arrival(sticky="s1", fail={"a": "refused"})]

    word = servers_of(upstream_of(sticky=LEARN), *arrivals, *repeat(Arrival(sticky="s1"), 2))

    assert word[1:] == word[1] * 3
    assert word[1] != "a"


def test_a_session_unused_for_ten_minutes_is_forgotten():
    """The request takes its turn."""
    arrivals = [Arrival(learnt="s1"), Arrival(t=599, sticky="s1"), Arrival(t=1200, sticky="s1")]

    assert servers_of(upstream_of("least_conn", LEARN), *arrivals) == "aab"


def test_a_single_draining_server_serves_only_its_own_clients():
    """All other clients get "no live upstreams"."""
    upstream = Upstream((Server("a", route="a", drain=True),), sticky=COOKIE)

    picks = predict(upstream, [Arrival(sticky="a"), Arrival()])

    assert [pick.server for pick in picks] == ["a", None]
