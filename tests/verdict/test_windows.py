"""Bounds on what every server had open."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict.windows import open_requests, windows

UPSTREAM = Upstream((Server("a"), Server("b")))


def hit(server: str, start: int, end: int) -> Hit:
    """A request from start to end, in ms."""
    lasted = (end - start) / 1000
    return Hit((server,), msec=end / 1000, request_time=lasted, upstream_response_time=(lasted,))


spans = st.tuples(st.sampled_from("ab"), st.integers(0, 200), st.integers(0, 50))


@given(st.lists(spans, min_size=1, max_size=20), st.lists(st.integers(0, 15), min_size=40))
def test_the_truth_lies_between_the_bounds(
    requests: list[tuple[str, int, int]], parts: list[int]
) -> None:
    """Whatever the times behind the milliseconds were, in any order within them."""
    hits = [hit(server, start, start + lasts) for server, start, lasts in requests]
    picks = [start + Fraction(parts[n], 16) for n, (_, start, _) in enumerate(requests)]
    ends = [
        max(picks[n], start + lasts + Fraction(parts[-n - 1], 16))
        for n, (_, start, lasts) in enumerate(requests)
    ]

    least, most = open_requests(windows(UPSTREAM, hits).widened(0.5), 2)

    for n, at in enumerate(picks):
        for number, name in enumerate("ab"):
            held = sum(
                server == name and other != n and picks[other] < at < ends[other]
                for other, (server, _, _) in enumerate(requests)
            )
            assert least[n, number] <= held <= most[n, number]


def test_far_apart_the_bounds_are_one_number():
    """b has one open when a is picked."""
    hits = [hit("b", 1000, 3000), hit("a", 2000, 2500)]

    least, most = open_requests(windows(UPSTREAM, hits).widened(2), 2)

    assert least[1].tolist() == most[1].tolist() == [0, 1]


def test_a_wider_clock_knows_less():
    """A request that ended 3 ms before the pick may still be open with 2 ms on both sides."""
    hits = [hit("b", 1000, 1997), hit("a", 2000, 2500)]
    seen = windows(UPSTREAM, hits)

    sharp, blurred = (open_requests(seen.widened(slack), 2) for slack in (0.5, 2))

    assert (sharp[0][1, 1], sharp[1][1, 1]) == (0, 0)
    assert (blurred[0][1, 1], blurred[1][1, 1]) == (0, 1)
