"""When nginx counts a failure of a server, and when it tries the next one."""

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Upstream
from nginx_llm_lab.oracle import Arrival, Pick, predict


def attempts(arrival: Arrival, *conditions: str, tries: int = 0, timeout: float = 0) -> str:
    """The servers a, b, c that one request is tried on, as a word."""
    rules = NextUpstream(frozenset(conditions or ("error", "timeout")), tries, timeout)
    upstream = Upstream(tuple(Server(name) for name in "abc"), next_upstream=rules)
    (pick,) = predict(upstream, [arrival])
    return "".join(pick.attempts)


def failing(kind: str, method: str = "GET", **more: float) -> Arrival:
    """A request that server a fails in this way."""
    return Arrival(method=method, fail={"a": kind}, took={"a": more.get("took", 0.0)})


@pytest.mark.parametrize("kind", ["refused", "connect_timeout", "error", "timeout"])
def test_errors_and_timeouts_are_retried_by_default(kind: str):
    """A GET goes on to the next server."""
    assert attempts(failing(kind)) == "ab"


@pytest.mark.parametrize("kind", ["invalid_header", "http_500", "http_503"])
def test_nothing_else_is_retried_by_default(kind: str):
    """The answer is passed on."""
    assert attempts(failing(kind)) == "a"


@pytest.mark.parametrize("kind", ["http_500", "http_404", "http_429", "invalid_header"])
def test_what_is_listed_is_retried(kind: str):
    """proxy_next_upstream names it."""
    assert attempts(failing(kind), kind) == "ab"


def test_off_retries_nothing_but_counts_failures():
    """The next request finds the server banned."""
    upstream = Upstream((Server("a"), Server("b")), next_upstream=NextUpstream(frozenset({"off"})))

    picks = list(predict(upstream, [failing("refused"), Arrival(), Arrival()]))

    assert picks == [Pick("a", ("a",)), Pick("b", ("b",)), Pick("b", ("b",))]


@pytest.mark.parametrize("method", ["POST", "LOCK", "PATCH"])
def test_a_request_that_was_sent_is_not_repeated_if_it_may_act_twice(method: str):
    """Unless non_idempotent is listed; a refused connection is retried anyway."""
    assert attempts(failing("error", method)) == "a"
    assert attempts(failing("timeout", method)) == "a"
    assert attempts(failing("refused", method)) == "ab"
    assert attempts(failing("connect_timeout", method)) == "ab"
    assert attempts(failing("error", method), "error", "non_idempotent") == "ab"
    assert attempts(failing("http_500", method), "http_500") == "a"
    assert attempts(failing("http_500", method), "http_500", "non_idempotent") == "ab"


def test_the_number_of_tries_is_limited():
    """proxy_next_upstream_tries 2: the third server is never asked."""
    everyone = Arrival(fail=dict.fromkeys("abc", "refused"))

    assert attempts(everyone) == "abc"
    assert attempts(everyone, tries=2) == "ab"


def test_the_time_of_tries_is_limited():
    """proxy_next_upstream_timeout 3: after 3 s there is no further attempt."""
    assert attempts(failing("timeout", took=2.9), timeout=3) == "ab"
    assert attempts(failing("timeout", took=3), timeout=3) == "a"


def test_the_last_servers_status_is_passed_on_as_a_success():
    """All answer 500: the first two are blamed, the third is not and serves the next request."""
    rules = NextUpstream(frozenset({"http_500"}))
    upstream = Upstream(tuple(Server(name) for name in "abc"), next_upstream=rules)

    picks = list(predict(upstream, [Arrival(fail=dict.fromkeys("abc", "http_500")), Arrival()]))

    assert picks == [Pick("c", ("a", "b", "c")), Pick("c", ("c",))]


def test_a_listed_404_is_retried_without_counting_as_a_failure():
    """404 is listed: the next server is asked, and the first keeps its turns."""
    rules = NextUpstream(frozenset({"http_404"}))
    upstream = Upstream((Server("a"), Server("b")), next_upstream=rules)

    picks = list(predict(upstream, [failing("http_404"), Arrival(), Arrival(), Arrival()]))

    assert picks[0] == Pick("b", ("a", "b"))
    assert {pick.server for pick in picks[1:]} == {"a", "b"}


def test_down_servers_are_no_tries():
    """Two servers of three are up: the second's 500 is the last one and passed on."""
    rules = NextUpstream(frozenset({"http_500"}))
    servers = (Server("a"), Server("b"), Server("c", down=True))
    arrival = Arrival(fail={"a": "http_500", "b": "http_500"})

    (pick,) = predict(Upstream(servers, next_upstream=rules), [arrival])

    assert pick == Pick("b", ("a", "b"))


def test_backups_are_tries():
    """The primary fails, the backup serves."""
    servers = (Server("a"), Server("b", backup=True))

    (pick,) = predict(Upstream(servers), [failing("error")])

    assert pick == Pick("b", ("a", "b"))


def test_an_unknown_failure_is_an_error():
    """The message names it and the server."""
    with pytest.raises(UsageError, match='unknown failure "tired" of server "a"'):
        attempts(failing("tired"))
