"""How each method would have spread a log's traffic."""

import json
import random

import numpy as np
import pytest

from nginx_llm_lab import oracle
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.whatif.spread import peak, picks, spread, traffic


def line(start: float, seconds: float, uri: str = "/", client: str = "10.0.0.1") -> bytes:
    """One line of the lab's JSON log."""
    entry = {
        "msec": f"{start + seconds:.3f}",
        "request_time": f"{seconds:.3f}",
        "request_uri": uri,
        "remote_addr": client,
    }
    return json.dumps(entry).encode()


def upstream(method: str, key: str = "") -> Upstream:
    """Three equal servers."""
    return Upstream(tuple(Server(name) for name in "abc"), method, key=key)


def test_round_robin_takes_turns_in_the_order_of_arrival_not_of_the_log():
    """The first request lasts longest, so it is logged last."""
    log = traffic([line(1, 0.1, "/2"), line(2, 0.1, "/3"), line(0, 9, "/1")])

    assert log.keys == (b"/1", b"/2", b"/3")
    assert log.starts.tolist() == pytest.approx([0, 1, 2])
    assert spread(upstream("round_robin"), log).requests == {
        "a": 1,
        "b": 1,
        "c": 1,
    }


def test_least_conn_keeps_away_from_a_server_that_is_busy():
    """One request of 10 s, nine of 0.1 s one after the other: the busy server gets no other."""
    log = traffic([line(0, 10), *(line(1 + n, 0.1) for n in range(9))])

    by_load = spread(upstream("least_conn"), log)
    by_turns = spread(upstream("round_robin"), log)

    assert by_load.requests["a"] == 1
    assert by_turns.requests["a"] == 4
    assert by_turns.peak["a"] == 2
    assert max(by_load.peak.values()) == 1
    assert by_turns.hottest == "a"


def test_without_its_hottest_server_a_consistent_hash_moves_nobody_elses_keys():
    """Turns move, keys stay."""
    log = traffic([line(n, 0.5, f"/{n % 40}") for n in range(400)])

    by_key = spread(upstream("hash_consistent", "$request_uri"), log)
    by_turns = spread(upstream("round_robin"), log)

    assert by_key.moved == 0
    assert by_turns.moved > 0.3
    assert sum(by_key.requests.values()) == 400


def test_busy_seconds_are_the_logs_durations():
    """Each server's sum of them."""
    log = traffic([line(0, 2.0), line(1, 3.0), line(2, 4.0)])

    assert spread(upstream("round_robin"), log).busy == {"a": 2, "b": 3, "c": 4}


def test_a_server_that_ends_one_request_as_it_begins_the_next_has_one_in_flight():
    """Three in a row, then two that overlap."""
    starts = np.array([0.0, 1.0, 2.0])

    assert peak(starts, np.array([1.0, 1.0, 1.0])) == 1
    assert peak(starts, np.array([1.5, 1.0, 1.0])) == 2


def test_lines_without_milliseconds_keep_their_order_within_the_second():
    """A combined log knows whole seconds only."""
    form = '10.0.0.1 - - [25/Nov/2026:10:00:07 +0000] "GET /{} HTTP/1.1" 200 1 "-" "x" 0.000'
    log = traffic(form.format(n).encode() for n in range(3))

    assert log.keys == (b"/0", b"/1", b"/2")
    assert log.starts.tolist() == pytest.approx([0, 0.001, 0.002])
    assert not log.exact


def test_malformed_lines_are_counted_and_the_first_named():
    """Twelve broken lines beside a good one."""
    log = traffic([*([b"broken"] * 12), line(0, 1)])

    assert (len(log), log.malformed) == (1, 12)
    assert [entry.number for entry in log.first_malformed] == list(range(1, 11))


@pytest.mark.parametrize("address", ["-", ""])
def test_a_request_that_nginx_answered_itself_takes_no_turn(address):
    """A redirect, a file, a cached answer; `escape=json` writes nothing instead of "-"."""
    redirect = {"msec": "0.5", "request_uri": "/2", "upstream_addr": address}
    passed = {"msec": "0.4", "request_uri": "/1", "upstream_addr": "10.0.0.1:80"}

    log = traffic(json.dumps(entry).encode() for entry in (redirect, passed))

    assert (log.keys, log.unproxied) == ((b"/1",), 1)
    with pytest.raises(UsageError, match=r'to a server: \$upstream_addr is always "-"'):
        traffic([json.dumps(redirect).encode()])


def test_a_log_without_any_request_is_an_error_that_names_a_line():
    """And the next step."""
    with pytest.raises(UsageError, match="line 1: not in the format"):
        traffic([b"broken"])
    with pytest.raises(UsageError, match="the log is empty"):
        traffic([])


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_service_time_that_no_request_has_is_refused(seconds):
    """A negative one, or none at all."""
    with pytest.raises(UsageError, match="--service-time"):
        traffic([b""], seconds=seconds)


@pytest.mark.parametrize("method", ["hash", "hash_consistent"])
def test_requests_with_an_empty_key_take_turns(method):
    """A header that is not in the log, a cookie that the client did not send."""
    log = traffic([line(n, 0.1) for n in range(9)], "$http_x_user")

    assert spread(upstream(method, "$http_x_user"), log).requests == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize("key", ["$remote_addr", "$binary_remote_addr"])
def test_the_address_of_a_log_without_addresses_is_an_empty_key(key):
    """Another address for it would send all requests to one server."""
    text = b'{"msec":5.0,"request_uri":"/a","request_time":0.1}'

    assert traffic([text], key).keys == (b"",)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("$cookie_sid", b"s7"),
        ("$cookie_lang", b"en"),
        ("$host$uri", b"api.example/a"),
        ("$http_x", b"1"),
    ],
)
def test_a_cookie_or_a_host_may_stand_in_the_log_by_itself(key, value):
    """A format has `$cookie_sid` or `$host` more often than all of the header."""
    fields = {
        "cookie_sid": "s7",
        "cookie_lang": "en",
        "cookie_none": "-",
        "http_x": "1",
        "host": "api.example",
    }
    text = json.dumps({"msec": "5.0", "request_uri": "/a", **fields})

    assert traffic([text.encode()], key).keys == (value,)


def test_a_key_is_evaluated_from_what_the_log_has():
    """An argument of the URI."""
    assert traffic([line(0, 1, "/a?user=7&x=1")], "$arg_user").keys == (b"7",)


@pytest.mark.parametrize("method", ["ip_hash", "hash", "hash_consistent"])
def test_a_hash_picks_as_the_oracle_does_request_by_request(method):
    """Each distinct client or key is picked for once; the answer is that of picking for all."""
    rows = [(n / 9, 0.5, f"/{n % 23}", f"10.{n % 31}.0.1") for n in range(200)]
    group = upstream(method, "" if method == "ip_hash" else "$request_uri")
    log = traffic([line(*row) for row in rows])

    expected = [pick.server for pick in oracle.predict(group, log.arrivals(lasting=False))]

    assert ["abc"[at] for at in picks(group, log)] == expected


@pytest.mark.parametrize("method", ["round_robin", "random"])
def test_durations_change_no_pick_where_the_load_does_not_decide(method):
    """The picks are those of the oracle that knows every duration."""
    log = traffic([line(n / 9, 0.1 + n % 5, f"/{n}") for n in range(200)])
    draw = random.Random(1).randrange

    lasting = oracle.predict(upstream(method), log.arrivals(lasting=True), draw=draw)

    assert ["abc"[at] for at in picks(upstream(method), log)] == [pick.server for pick in lasting]
