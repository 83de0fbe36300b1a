"""What the tests of the oracle share: servers, their answers, and random servers."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, predict


def weighted(method: str, *weights: int, **more: Any) -> Upstream:
    """Servers a, b, c … of these weights under a method."""
    servers = (Server(chr(97 + number), weight) for number, weight in enumerate(weights))
    return Upstream(tuple(servers), method, **more)


def servers_of(upstream: Upstream, *arrivals: Arrival) -> str:
    """The server that answers each arrival, as one word."""
    return "".join(str(pick.server) for pick in predict(upstream, arrivals))


def server_at(weights: Sequence[int], number: int) -> int:
    """The server into whose share of the weights a number falls, modulo their sum."""
    rest, server = number % sum(weights), 0
    while rest >= weights[server]:
        rest, server = rest - weights[server], server + 1
    return server


def server_lists(
    names: Sequence[str], weight: int, max_fails: int, sizes: tuple[int, int]
) -> st.SearchStrategy[list[Server]]:
    """Servers up to this weight and max_fails, at least one of them not a backup."""
    server = st.builds(
        Server,
        st.sampled_from(names),
        st.integers(1, weight),
        st.integers(0, max_fails),
        st.integers(0, 2),
        st.sampled_from([0, 0, 0, 1, 2]),
        st.sampled_from([False, False, True]),
        st.sampled_from([False, False, False, True]),
    )
    least, most = sizes
    return st.lists(server, min_size=least, max_size=most).filter(
        lambda lines: any(not line.backup for line in lines)
    )
