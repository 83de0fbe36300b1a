"""A soak's traffic: a mixture of requests that its seed decides, until it is over."""

from collections import Counter
from itertools import islice

import pytest

from nginx_llm_lab.traffic.mixture import mixture
from nginx_llm_lab.traffic.workload import Planned, requests


def drawn(seed: int, number: int) -> list[Planned]:
    """The first requests of a mixture without end."""
    return list(islice(requests(mixture(seed, lambda: 100.0, lambda: False).users), number))


def kind(planned: Planned) -> str:
    """GET, POST or stream."""
    return "stream" if planned.request is None else planned.request.method


def test_the_same_seed_sends_the_same_requests() -> None:
    """A soak that failed is sent again."""
    assert drawn(7, 200) == drawn(7, 200)
    assert drawn(7, 200) != drawn(8, 200)


def test_the_kinds_come_six_to_three_to_one() -> None:
    """Of 3,000 requests, give or take chance."""
    counts = Counter(kind(planned) for planned in drawn(1, 3000))

    assert counts.keys() == {"GET", "POST", "stream"}
    assert 1700 < counts["GET"] < 1900
    assert 250 < counts["stream"] < 350


def test_requests_come_at_the_rate_until_it_is_over() -> None:
    """100 a second: one every 10 ms; five of them, then no more."""
    left = iter([False] * 5)
    users = list(mixture(1, lambda: 100.0, lambda: next(left, True)).users)

    assert [user.due for user in users] == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])


def test_the_rate_may_change_on_the_way() -> None:
    """From 100 a second to 10, and back."""
    rates = iter([100.0, 100.0, 10.0, 10.0, 100.0])
    users = islice(mixture(1, lambda: next(rates), lambda: False).users, 6)

    assert [user.due for user in users] == pytest.approx([0.0, 0.01, 0.02, 0.12, 0.22, 0.23])
