"""Bounds of the requests in flight on every server."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict.replay.windows import open_requests, windows
from tests.verdict.hits import hit

UPSTREAM = Upstream((Server("a"), Server("b")))


def request_of(span: tuple[str, int, int]) -> tuple[str, int, int]:
    """The server, start and end of a request, in ms."""
    server, start, lasts = span
    return server, start, start + lasts


spans = st.tuples(st.sampled_from("ab"), st.integers(0, 200), st.integers(0, 50))


@given(
    st.lists(spans, min_size=1, max_size=20),
    st.lists(st.integers(0, 15), min_size=40),
    st.booleans(),
)
def test_the_truth_lies_between_the_bounds(
    requests: list[tuple[str, int, int]], parts: list[int], journal: bool
) -> None:
    """Whatever the times behind the milliseconds were, in any order within them.

    A journal notes a request 1/16 ms after its pick, its end as long before its release.
    """
    hits = [hit(*request_of(request), request_id=str(n)) for n, request in enumerate(requests)]
    picks = [start + Fraction(parts[n], 16) for n, (_, start, _) in enumerate(requests)]
    ends = [
        max(picks[n], start + lasts + Fraction(parts[-n - 1], 16))
        for n, (_, start, lasts) in enumerate(requests)
    ]

    late = Fraction(1, 16)
    served = {
        str(n): (float(at + late) / 1000, float(end - late) / 1000)
        for n, (at, end) in enumerate(zip(picks, ends, strict=True))
    }

    seen = windows(UPSTREAM, hits, served if journal else {})
    least, most = open_requests(seen.widened(0.5), 2)

    for n, at in enumerate(picks):
        for number, name in enumerate("ab"):
            held = sum(
                server == name and other != n and picks[other] < at < ends[other]
                for other, (server, _, _) in enumerate(requests)
            )
            assert least[n, number] <= held <= most[n, number]


def test_a_journal_tells_what_was_open_within_a_millisecond() -> None:
    """a came to its backend before b's answer had left: b was open."""
    hits = [hit("b", 1000, 2000, request_id="1"), hit("a", 2000, 2500, request_id="2")]

    def loads(left: float) -> tuple[float, float]:
        served = {"1": (1.0003, left), "2": (2.0003, 2.5)}
        least, most = open_requests(windows(UPSTREAM, hits, served).widened(0.49), 2)
        return least[1, 1], most[1, 1]

    assert loads(2.0001) == (0, 1)
    assert loads(2.0012) == (1, 1)


def test_a_journal_of_another_clock_makes_no_window_empty() -> None:
    """Its backend seems to have answered before the request came."""
    seen = windows(UPSTREAM, [hit("a", 1000, 2000, request_id="1")], {"1": (0.5, 3.0)}).widened(0.5)

    assert seen.pick_from <= seen.pick_to
    assert seen.free_from <= seen.free_to


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


def test_a_delayed_worker_logs_an_earlier_time():
    """b's answer may have been passed on until worker 7 next read its clock, 30 ms later."""
    hits = [hit("b", 1000, 1997, pid=7), hit("a", 2010, 2012, pid=8), hit("b", 2027, 2100, pid=7)]
    seen = windows(UPSTREAM, hits)

    believed, held_up, shorter = (open_requests(seen.widened(2, s), 2) for s in (0, 60, 5))

    assert (believed[0][1, 1], believed[1][1, 1]) == (0, 0)
    assert (held_up[0][1, 1], held_up[1][1, 1]) == (0, 1)
    assert (shorter[0][1, 1], shorter[1][1, 1]) == (0, 0)
