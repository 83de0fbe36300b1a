"""What the bench of predictions measures."""

import json

import pytest

from nginx_llm_lab.bench import commands, predicting, run
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence.split import count_file


def test_every_method_is_measured_at_every_size():
    """Nine methods on 3 and on 5 servers, and an exponent each."""
    measured = list(predicting.measure((3, 5), 50, 2, lambda _: None))

    assert len(measured) == 9 * 3
    assert {len(series.values) for series in measured} == {2}


def test_growth_is_measured_from_100_to_1000_servers():
    """Twice the time for ten times the servers."""
    ratio, exponent = predicting.growth("hash", {100: [1.0], 1000: [2.0]})

    assert ratio.values == (2.0,)
    assert exponent.values == pytest.approx((0.301,), abs=0.001)


def test_the_requests_are_the_same_each_time():
    """One seed, one list; each line has a path and a client."""
    lines = predicting.request_lines(3)

    assert lines == predicting.request_lines(3)
    assert set(json.loads(lines[0])) == {"uri", "client_ip"}


@pytest.mark.parametrize("lines", [commands.article_lines, commands.evidence_lines])
def test_the_logs_that_are_counted_are_logs(lines, tmp_path):
    """Seven lines of either format: 3, 2 and 2, none unread."""
    log = tmp_path / "access.log"
    log.write_bytes(b"".join(lines(7)))

    count = count_file(str(log))

    assert sorted(count.as_dict()["split"].values()) == [2, 2, 3]
    assert count.lines == 7


def test_an_unknown_section_is_an_error():
    """The hint names those that there are."""
    with pytest.raises(UsageError, match='unknown section "speed"') as raised:
        list(run.measure(["speed"], True, 1, lambda _: None))

    assert "predicting" in raised.value.hint
