"""The least estimated time per weight."""

from functools import partial
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.oracle import Arrival, predict
from nginx_llm_lab.oracle.least_time import Times, averaged, clustered
from tests.oracle.strategies import servers_of, weighted

upstream_of = partial(weighted, "least_time", measure="last_byte")


@pytest.mark.parametrize(
    ("time", "step"), [(0, 20), (19, 20), (20, 40), (4999, 5000), (5000, 5020), (5001, 5000)]
)
def test_times_come_in_steps_of_20_ms(time: int, step: int) -> None:
    """Up to the next multiple, 20 becomes 40; above 5,000 all are 5,000."""
    assert clustered(time) == step


def test_the_average_takes_a_twentieth_of_what_is_new():
    """The first sample is taken as it is; then 5 % new and 95 % old, rounded."""
    assert averaged(0, 100) == 100
    assert averaged(100, 200) == 105
    assert averaged(105, 0) == 100


def test_idle_fast_servers_of_equal_weight_take_turns():
    """The estimate of every server is 20 ms."""
    assert servers_of(upstream_of(1, 1, 1), *repeat(Arrival(), 6)) == "abcabc"


def test_the_heaviest_idle_fast_server_takes_everything():
    """20 ms by weight 3 is less than 20 ms by weight 1."""
    assert servers_of(upstream_of(3, 1, 1), *repeat(Arrival(), 6)) == "aaaaaa"


def test_a_slow_server_is_left_alone():
    """a took 300 ms, b takes 10: from then on b."""
    arrivals = [Arrival(t=0, duration=0.3), *(Arrival(t=n, duration=0.01) for n in range(1, 6))]

    assert servers_of(upstream_of(1, 1), *arrivals) == "abbbbb"


def test_a_slow_server_that_was_left_alone_gets_another_chance():
    """Every fail_timeout + 1 s without a pick halve its time: 30 ms are 15 after 11 s."""
    fast = (Arrival(t=10 + n / 4, duration=0.01) for n in range(8))

    assert servers_of(upstream_of(1, 1), Arrival(t=10, duration=0.03), *fast) == "abbbbbbbb"
    assert servers_of(upstream_of(1, 1), Arrival(t=10, duration=0.03), Arrival(t=21)) == "ab"
    late = (Arrival(t=21, duration=0.01), Arrival(t=21.5))
    assert servers_of(upstream_of(1, 1), Arrival(t=10, duration=0.03), *late) == "aba"


def test_header_and_last_byte_are_two_measures():
    """a answers its header at once and lasts; b the other way round."""
    first = Arrival(t=0, header=0.0, duration=0.4)
    second = Arrival(t=1, header=0.1, duration=0.1)
    arrivals = [first, second, Arrival(t=2)]

    assert servers_of(upstream_of(1, 1, measure="header"), *arrivals)[2] == "a"
    assert servers_of(upstream_of(1, 1, measure="last_byte"), *arrivals)[2] == "b"


def test_running_requests_count_with_inflight():
    """b has one old request open, a two young ones: by number b is next, by age a."""
    warm = [Arrival(t=0, duration=0.03), Arrival(t=1, duration=0.03)]
    busy = [Arrival(t=t, duration=9) for t in (2, 4, 4.5, 5)]

    plain = servers_of(upstream_of(1, 1), *warm, *busy)
    inflight = servers_of(upstream_of(1, 1, measure="last_byte inflight"), *warm, *busy)

    assert (plain, inflight) == ("abbaab", "abbaaa")


def test_the_age_of_running_requests_is_kept_as_a_sum():
    """Begun at 0 and 100: at 200 they are 150 old on average; the first ends, 150 at 250."""
    times = Times()
    times.begin(0)
    times.begin(100)
    times.look(200)

    assert times.inflight == 150
    times.finish(200, 200)
    times.inflight = 0
    times.look(250)
    assert times.inflight == 150


def test_failed_attempts_are_no_samples():
    """A refused connection in no time does not make a server look fast."""
    warm = [Arrival(t=0, duration=0.1), Arrival(t=1, duration=0.05)]
    refused = [Arrival(t=2, duration=0.05, fail={"b": "http_500"})]
    upstream = upstream_of(1, 1)

    assert servers_of(upstream, *warm, *refused, Arrival(t=3)) == "abbb"


@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.lists(st.integers(0, 900), max_size=30),
)
def test_one_at_a_time_the_least_average_per_weight_is_picked(
    weights: list[int], times: list[int]
) -> None:
    """Averages kept by hand for requests a second apart, which never let a time be halved."""
    servers = (Server(chr(97 + n), weight, fail_timeout=99) for n, weight in enumerate(weights))
    upstream = Upstream(tuple(servers), "least_time", measure="header")
    arrivals = [Arrival(t=100 + n, duration=ms / 1000) for n, ms in enumerate(times)]
    averages = dict.fromkeys(range(len(weights)), 0)

    for pick, ms in zip(predict(upstream, arrivals), times, strict=True):
        etas = {n: (average // 20 + 1) * 20 for n, average in averages.items()}
        least = min(etas[n] / weights[n] for n in etas)
        chosen = ord(str(pick.server)) - 97
        assert etas[chosen] / weights[chosen] == least
        old = averages[chosen]
        averages[chosen] = int(old * 0.95 + ms * 0.05 + 0.5) if old else ms
