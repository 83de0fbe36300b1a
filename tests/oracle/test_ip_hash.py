"""The client's address decides."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, predict
from tests.oracle.strategies import server_at, weighted

upstream_of = partial(weighted, "ip_hash")


def picked(upstream: Upstream, **arrival: object) -> tuple[str, ...]:
    """The servers that one request is tried on."""
    (pick,) = predict(upstream, [Arrival(**arrival)])  # type: ignore[arg-type] # fields by name
    return pick.attempts


def model(weights: list[int], octets: bytes, number: int) -> list[int]:
    """The first servers of an address's chain, by walking through the weights."""
    chain, servers = 89, []
    for _ in range(number):
        for octet in octets:
            chain = (chain * 113 + octet) % 6271
        servers.append(server_at(weights, chain))
    return servers


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.ip_addresses())
def test_an_address_falls_into_a_share_of_the_weights(weights: list[int], address: object) -> None:
    """IPv4 counts by its first three octets, IPv6 by all sixteen."""
    packed: bytes = address.packed  # type: ignore[attr-defined] # an address of either kind
    octets = packed[:3] if len(packed) == 4 else packed

    server = picked(upstream_of(*weights), client_ip=str(address))[0]

    assert server == chr(97 + model(weights, octets, 1)[0])


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.ip_addresses(v=4))
def test_a_retry_goes_on_along_the_chain(weights: list[int], address: object) -> None:
    """All refuse: the distinct servers of the chain in order, as long as 21 misses last."""
    octets: bytes = address.packed[:3]  # type: ignore[attr-defined] # an IPv4 address
    failing = {chr(97 + n): "refused" for n in range(len(weights))}
    chain = list(dict.fromkeys(model(weights, octets, 21)))

    tried = picked(upstream_of(*weights), client_ip=str(address), fail=failing)

    assert tried[: len(chain)] == tuple(chr(97 + n) for n in chain)
    assert sorted(tried) == sorted(failing)


def test_a_whole_network_sticks_to_one_server():
    """The fourth octet does not count."""
    picks = predict(upstream_of(1, 1, 1), (Arrival(client_ip=f"10.1.2.{n}") for n in range(256)))

    assert len({pick.server for pick in picks}) == 1


def test_a_down_server_keeps_its_share_for_itself():
    """Only its own clients move."""
    whole, lacking = upstream_of(1, 1, 1), (Server("a"), Server("b", down=True), Server("c"))
    arrivals = [Arrival(client_ip=f"10.1.{n}.1") for n in range(200)]

    before = [pick.server for pick in predict(whole, arrivals)]
    after = [pick.server for pick in predict(Upstream(lacking, "ip_hash"), arrivals)]

    assert [a for a, b in zip(after, before, strict=True) if b != "b"] == [
        b for b in before if b != "b"
    ]
    assert "b" not in after


def test_a_unix_socket_counts_as_three_zeros():
    """Every local client is one client."""
    assert picked(upstream_of(1, 1), client_ip="unix:") == picked(
        upstream_of(1, 1), client_ip="0.0.0.9"
    )


def test_a_client_that_is_no_address_is_an_error():
    """The message names it."""
    with pytest.raises(UsageError, match=r'client_ip "10\.1" is not an IP address'):
        picked(upstream_of(1, 1), client_ip="10.1")
