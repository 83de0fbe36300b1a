"""A ring of points decides."""

from itertools import repeat
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, predict
from nginx_llm_lab.oracle.base import Group, group_of
from nginx_llm_lab.oracle.hash_consistent import HashConsistent, points_of, ring_of


def upstream_of(*servers: Server) -> Upstream:
    """Servers under hash … consistent."""
    return Upstream(servers, "hash_consistent")


def group(*servers: Server) -> Group:
    """Their peers."""
    return group_of(upstream_of(*servers), {})


def shares(*servers: Server) -> list[float]:
    """What part of all hash values falls to each server, in percent."""
    method = HashConsistent(group(*servers))
    before = [method.points[-1] - 2**32, *method.points[:-1]]
    sizes = dict.fromkeys((server.name for server in servers), 0)
    for name, point, last in zip(method.names, method.points, before, strict=True):
        sizes[name] += point - last
    return [round(100 * size / 2**32, 1) for size in sizes.values()]


def model(servers: list[tuple[str, str, int]], key: bytes) -> str:
    """The owner of the first point at or after a key's hash, by looking at every point."""
    points = []
    for number, (host, port, weight) in enumerate(servers):
        last = bytes(4)
        for _ in range(160 * weight):
            point = crc32(host.encode() + b"\0" + port.encode() + last)
            last = bytes((point >> shift) & 0xFF for shift in (0, 8, 16, 24))
            points.append((point, number))
    distance, number = min(((point - crc32(key)) % 2**32, number) for point, number in points)
    del distance
    host, port, _ = servers[number]
    return f"{host}:{port}" if port else host


def test_equal_servers_do_not_share_equally():
    """127.0.0.1:8101 to 8103 have 34.5, 34.1 and 31.4 % of the ring."""
    assert shares(*(Server(f"127.0.0.1:{port}") for port in (8101, 8102, 8103))) == [
        34.5,
        34.1,
        31.4,
    ]


def test_weights_set_the_number_of_points():
    """With weights 5, 1 and 3 the same three have 57.5, 10.9 and 31.7 %."""
    weights = {8101: 5, 8102: 1, 8103: 3}

    assert shares(*(Server(f"127.0.0.1:{port}", w) for port, w in weights.items())) == [
        57.5,
        10.9,
        31.7,
    ]


def test_copies_of_a_server_share_their_points():
    """The same address twice, with weights 1 and 3, has 480 points, not 640."""
    method = HashConsistent(group(Server("10.0.0.1:80", 1), Server("10.0.0.1:80", 3)))

    assert len(method.points) == 480


@pytest.mark.parametrize("ports", [(217, 230), (230, 217)])
def test_the_server_declared_first_keeps_a_point_that_two_have(ports: tuple[int, int]) -> None:
    """10.0.0.217:80 and 10.0.0.230:80 both have the point 4,218,070,947."""
    first, second = (Server(f"10.0.0.{host}:80") for host in ports)
    ring = ring_of(group(first, second).peers)

    assert ring[4_218_070_947] == first.name
    assert len(ring) == 319


def test_addresses_of_one_name_take_turns_on_its_points():
    """Three addresses of one name have 160 points together."""
    upstream = upstream_of(Server("llm"), Server("other"))
    addresses = {"llm": ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")}

    method = HashConsistent(group_of(upstream, addresses))

    assert method.names.count("llm") == 160


@pytest.mark.parametrize(
    ("one", "other"),
    [("10.0.0.1", "10.0.0.1:80"), ("Localhost", "localhost"), ("a:080", "a:80")],
)
def test_the_text_of_the_line_is_hashed_as_it_stands(one: str, other: str) -> None:
    """Neither port nor case nor leading zeros are made alike."""
    assert points_of(one, 160) != points_of(other, 160)


def test_a_unix_socket_is_hashed_by_its_path():
    """The prefix does not count, in any case; the port of another server does not either."""
    assert points_of("unix:/run/llm", 3) == points_of("UNIX:/run/llm", 3)
    assert points_of("unix:/run/llm:80", 3) != points_of("/run/llm:80", 3)


names = st.sampled_from(["10.0.0.1", "10.0.0.2", "backend-1", "[::1]", "b"])
lines = st.lists(
    st.tuples(names, st.sampled_from(["", "80", "8000"]), st.integers(1, 3)),
    min_size=2,
    max_size=4,
    unique_by=lambda server: server[:2],
)


@given(lines, st.binary(min_size=1, max_size=20))
def test_a_key_goes_to_the_first_point_at_or_after_its_hash(
    servers: list[tuple[str, str, int]], key: bytes
) -> None:
    """A linear scan over every point says the same."""
    upstream = upstream_of(
        *(Server(f"{host}:{port}" if port else host, weight) for host, port, weight in servers)
    )

    (pick,) = predict(upstream, [Arrival(key=key)])

    assert pick.server == model(servers, key)


@given(lines.filter(lambda servers: len(servers) > 2), st.integers(0, 1))
def test_losing_a_server_moves_only_its_own_keys(
    servers: list[tuple[str, str, int]], lost: int
) -> None:
    """Marked down or deleted, the others keep what they had."""
    whole = [Server(f"{host}:{port}" if port else host, w) for host, port, w in servers]
    gone = whole[lost].name
    arrivals = [Arrival(key=b"%d" % n) for n in range(50)]

    before = [pick.server for pick in predict(upstream_of(*whole), arrivals)]
    rest = upstream_of(*(server for server in whole if server.name != gone))
    after = [pick.server for pick in predict(rest, arrivals)]

    assert all(a == b for a, b in zip(after, before, strict=True) if b != gone)


def test_an_empty_key_takes_turns():
    """No key, no ring: round robin."""
    picks = predict(upstream_of(Server("a", 2), Server("b")), repeat(Arrival(), 3))

    assert "".join(str(pick.server) for pick in picks) == "aba"


def test_a_point_of_a_tried_server_is_a_miss():
    """The retry walks on along the ring to the next owner."""
    upstream = upstream_of(Server("a"), Server("b"), Server("c"))
    arrivals = (Arrival(key=b"%d" % n) for n in range(40))

    for arrival in arrivals:
        (clean,) = predict(upstream, [arrival])
        refused = Arrival(key=arrival.key, fail={str(clean.server): "refused"})
        (pick,) = predict(upstream, [refused])
        rest = upstream_of(*(Server(name) for name in "abc" if name != clean.server))
        assert pick.attempts == (clean.server, next(predict(rest, [arrival])).server)


def test_a_ring_that_does_not_fit_into_memory_is_refused():
    """160 million points would take 20 GB; nginx itself takes 2.6."""
    with pytest.raises(UsageError, match=r"160,000,160 points, above 8,000,000\ntry:   smaller"):
        ring_of(group(Server("a", weight=1_000_000), Server("b")).peers)
