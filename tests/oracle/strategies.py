"""What the oracle's random tests draw from."""

from collections.abc import Sequence

from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import Server


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
