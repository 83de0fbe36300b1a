"""least_time: the fastest and least busy server."""

import pytest

from nginx_llm_lab.stack import nginx


@pytest.fixture(autouse=True)
def recent(lab):
    """Open source since 1.31.0."""
    if nginx.version(lab.lab) < (1, 31, 0):
        pytest.skip("least_time needs nginx 1.31.0")


def test_one_at_a_time_each_pick_is_predicted_from_the_times_before(lab):
    """Idle and faster than 20 ms, equal servers take turns."""
    lab.use("least_time", measure="header")

    outcome = lab.send(600, concurrency=1)

    assert outcome.holds, outcome


@pytest.mark.parametrize("measure", ["header", "last_byte"])
def test_many_at_a_time_no_pick_was_wrong(lab, measure):
    """In nginx's own order."""
    lab.use("least_time", measure=measure)

    outcome = lab.send()

    assert outcome.holds, outcome
