"""The CRC32 of a key decides."""

from functools import partial
from itertools import repeat
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, predict
from tests.oracle.strategies import server_at, weighted

upstream_of = partial(weighted, "hash")


def model(weights: list[int], key: bytes, number: int) -> list[int]:
    """The first servers of a key's chain, by walking through the weights."""
    total, servers = 0, []
    for turn in range(number):
        total += (crc32((str(turn).encode() if turn else b"") + key) >> 16) & 0x7FFF
        servers.append(server_at(weights, total))
    return servers


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.binary(min_size=1))
def test_a_key_falls_into_a_share_of_the_weights(weights: list[int], key: bytes) -> None:
    """The first sum of the chain, modulo all weights."""
    (pick,) = predict(upstream_of(*weights), [Arrival(key=key)])

    assert pick.server == chr(97 + model(weights, key, 1)[0])


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5), st.binary(min_size=1))
def test_a_retry_hashes_anew_with_its_number_in_front(weights: list[int], key: bytes) -> None:
    """All refuse: the distinct servers of the chain in order, as long as 21 misses last."""
    failing = {chr(97 + n): "refused" for n in range(len(weights))}
    chain = list(dict.fromkeys(model(weights, key, 21)))

    (pick,) = predict(upstream_of(*weights), [Arrival(key=key, fail=failing)])

    assert pick.attempts[: len(chain)] == tuple(chr(97 + n) for n in chain)
    assert sorted(pick.attempts) == sorted(failing)


def test_an_empty_key_takes_turns():
    """No key, no hash: round robin."""
    picks = predict(upstream_of(2, 1), repeat(Arrival(), 6))

    assert "".join(str(pick.server) for pick in picks) == "abaaba"


def test_a_down_server_moves_no_other_key():
    """Its weight stays in the sum."""
    lacking = Upstream((Server("a"), Server("b", down=True), Server("c")), "hash")
    arrivals = [Arrival(key=b"/%d" % n) for n in range(300)]

    before = [pick.server for pick in predict(upstream_of(1, 1, 1), arrivals)]
    after = [pick.server for pick in predict(lacking, arrivals)]

    assert all(a == b for a, b in zip(after, before, strict=True) if b != "b")
    assert "b" not in after


def test_the_21st_miss_takes_a_turn():
    """A down server of nearly all the weight: most keys end in round robin over the others."""
    heavy = Upstream((Server("a", 10**6, down=True), Server("b"), Server("c")), "hash")

    picks = predict(heavy, (Arrival(key=b"/%d" % n) for n in range(6)))

    assert "".join(str(pick.server) for pick in picks) == "bcbcbc"
