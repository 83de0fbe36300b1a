"""Which method for the traffic of a log."""

from nginx_llm_lab.report import scores
from nginx_llm_lab.simulate import log_advice
from nginx_llm_lab.simulate.advice import CANDIDATES
from nginx_llm_lab.whatif.replay import whatif
from nginx_llm_lab.whatif.spread import traffic
from tests.whatif.test_spread import line

SERVERS = ("backend-1", "backend-2", "backend-3")


def advised(lines: list[bytes]) -> log_advice.LogAdvice:
    """The advice on a log."""
    return log_advice.advise(whatif(traffic(lines), list(CANDIDATES), SERVERS), SERVERS)


def test_long_requests_at_every_third_place_need_least_conn():
    """Turns give all of them to one server, which soon has most requests in flight."""
    lines = [line(n, 60 if n % 3 == 0 else 0.5, client=f"10.0.{n % 200}.1") for n in range(300)]

    advice = advised(lines)

    assert advice.best[0] == "least_conn"
    assert "round_robin" not in advice.best
    assert "least_conn;" in advice.config


def test_equal_requests_are_a_tie_and_the_simplest_method_is_named():
    """Of all clients behind one address, ip_hash makes one server."""
    advice = advised([line(n / 10, 1.0) for n in range(300)])

    assert advice.best[:2] == ("round_robin", "least_conn")
    assert advice.ranking[-1].method == "ip_hash"


def test_lines_that_are_no_requests_are_counted():
    """Advice on a tenth of the traffic must say that it is."""
    advice = advised([line(n, 1.0) for n in range(3)] + [b"{"] * 27)

    assert (advice.requests, advice.malformed) == (3, 27)
    assert "3 requests of the log, replayed; malformed lines: 27" in scores.log_advice(advice)


def test_limits_of_a_log_are_listed():
    """No cookie, no prompt, no cache."""
    advice = advised([line(n, 1.0) for n in range(30)])

    assert set(advice.left_out) == {"sticky", "prompt_prefix"}
    assert "cache nothing" in advice.assumptions[-1]
