"""A log replayed through every method for which it has the data."""

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.whatif import replay
from nginx_llm_lab.whatif.replay import server_texts, whatif
from nginx_llm_lab.whatif.spread import traffic

from .test_spread import line


def test_each_method_that_the_log_shows_is_replayed_and_the_others_say_why():
    """A cookie that nginx sets is in no log."""
    log = traffic([line(n / 10, 0.3, f"/{n}") for n in range(60)])

    result = whatif(log, ["round_robin", "hash", "sticky"], ["a:1", "b:1"], weights="2,1")

    assert [spread.method for spread in result.spreads] == ["round_robin", "hash"]
    assert result.spreads[0].requests == {"a:1": 40, "b:1": 20}
    assert "cookie" in result.left_out["sticky"]


def test_methods_none_of_which_the_log_shows_are_an_error_with_the_reasons():
    """An empty table would look like an answer."""
    log = traffic([line(n, 0.1) for n in range(9)])

    with pytest.raises(UsageError, match=r"no method can be .* sticky: its cookie .*; prompt_pre"):
        whatif(log, ["sticky", "prompt_prefix"], ["a:1"])


def test_a_long_log_gives_the_same_answer_by_several_processes(monkeypatch):
    """Only the time differs."""
    log = traffic([line(n / 10, 0.5, f"/{n % 7}") for n in range(300)])
    names = ["least_conn", "hash_consistent", "random_two"]
    alone = whatif(log, names, server_texts("3"))

    monkeypatch.setattr(replay, "LARGE", 100)

    assert whatif(log, names, server_texts("3")) == alone


def test_servers_are_a_number_or_names():
    """As `lab predict` takes them."""
    assert server_texts("2") == ["server-1", "server-2"]
    assert server_texts("a:1, b:1 weight=2") == ["a:1", "b:1 weight=2"]
    assert server_texts("10.0.0.1") == ["10.0.0.1"]
    for number in ("0", "-1", "1.5"):
        with pytest.raises(UsageError, match=f"--servers {number} is out of range"):
            server_texts(number)


@pytest.mark.parametrize("text", ["a,b,a", "a weight=2,a", "a:1, a:1 backup"])
def test_a_server_that_is_named_twice_is_refused(text):
    """The result has one entry for each name."""
    with pytest.raises(UsageError, match=r'--servers names "a(:1)?" 2 times\ntry:   .*--weights'):
        server_texts(text)


def test_assumptions_of_the_replay_are_listed():
    """A log without durations, in whole seconds."""
    text = '10.0.0.1 - - [25/Nov/2026:10:00:07 +0000] "GET / HTTP/1.1" 200 1 "-" "x"'
    result = whatif(traffic([text.encode()] * 2), ["round_robin"], ["a:1"])

    assumed = " ".join(result.assumptions)
    assert "whole seconds" in assumed
    assert "requests that have no duration in the log (2) last " in assumed


def test_keys_that_are_not_in_the_log_are_counted():
    """Only a hash method hashes one."""
    log = traffic([line(n, 0.1) for n in range(9)], "$http_x_user")

    hashed = whatif(log, ["hash"], ["a:1", "b:1"], key="$http_x_user")
    by_turns = whatif(log, ["round_robin"], ["a:1", "b:1"], key="$http_x_user")

    expected = "requests whose key is empty or not in the log (9) take turns, as in nginx"
    assert expected in hashed.assumptions
    assert expected not in by_turns.assumptions


def test_requests_that_reached_no_server_are_counted():
    """They are not among the requests that are replayed."""
    log = traffic([line(0, 0.1), b'{"msec":"1.0","request_uri":"/","upstream_addr":"-"}'])

    result = whatif(log, ["round_robin"], ["a:1", "b:1"])

    assert result.requests == 1
    assert any("passed to no server (1) are left out" in text for text in result.assumptions)


def test_ip_hash_is_left_out_where_the_log_has_no_addresses():
    """All requests from one address would all go to one server."""
    text = b'{"msec":5.0,"request_uri":"/a","request_time":0.1}'

    result = whatif(traffic([text]), ["round_robin", "ip_hash"], ["a:1", "b:1"])

    assert [spread.method for spread in result.spreads] == ["round_robin"]
    assert result.left_out == {"ip_hash": "the client's address is not in the log"}
