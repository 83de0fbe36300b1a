"""Read nginx's debug log into picks and releases, from logs that a real nginx 1.31 wrote.

tests/data/trace/NAME.log is what nginx/trace.awk keeps of the debug log, NAME.jsonl the access log
of the same requests.
"""

from collections import Counter
from pathlib import Path

import pytest

from nginx_llm_lab.evidence import access_log, trace
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.trace import PICK, RELEASE, TIMED, Event, Order, Step

RECORDED = Path(__file__).parents[1] / "data/trace"
METHODS = (
    "round_robin",
    "least_conn",
    "random",
    "random_two",
    "hash",
    "hash_consistent",
    "ip_hash",
)


def recorded(name: str) -> Order:
    """The order of one recorded log."""
    hits = access_log.read((RECORDED / f"{name}.jsonl").read_bytes().splitlines()).hits
    return trace.order((RECORDED / f"{name}.log").read_bytes().splitlines(), hits)


def numbered(*lines: str) -> list[bytes]:
    """Lines of a debug log with their numbers, from `worker *connection text`."""
    texts = (line.split(" ", 1) for line in lines)
    return [
        f"{number}:2026/11/25 16:00:00 [debug] {worker}#{worker}: {text}".encode()
        for number, (worker, text) in enumerate(texts, 1)
    ]


@pytest.mark.parametrize("name", [*METHODS, "sticky", "single"])
def test_every_method_has_a_pick_and_a_release_for_each_request(name: str) -> None:
    """The lines of a pick differ from method to method; the kept ones are enough for all."""
    order = recorded(name)

    kinds = Counter(step.kind for step in order.steps)
    assert not order.gap
    assert kinds[PICK] == kinds[RELEASE] == len({step.request_id for step in order.steps}) > 3


def test_least_time_also_says_when_it_took_the_times() -> None:
    """Its average changes just before the release, under another lock."""
    kinds = Counter(step.kind for step in recorded("least_time").steps)

    assert kinds == {PICK: 12, TIMED: 12, RELEASE: 12}


def test_each_attempt_of_a_retry_has_its_own_pick_and_a_failed_release() -> None:
    """backend-1 refuses, backend-2 answers."""
    steps = recorded("retries").steps

    first = [step for step in steps if step.request_id == steps[0].request_id]
    assert [(step.kind, step.attempt, step.failed, step.server) for step in first] == [
        (PICK, 0, False, "172.23.0.2:8001"),
        (RELEASE, 0, True, "172.23.0.2:8001"),
        (PICK, 1, False, "172.23.0.3:8000"),
        (RELEASE, 1, False, "172.23.0.3:8000"),
    ]


def test_a_pick_that_found_no_server_is_never_released() -> None:
    """nginx logs the upstream's name; nothing was picked, so nothing is freed."""
    steps = recorded("no_live").steps

    assert [step.kind for step in steps if step.server == "llm"] == [PICK] * 4


def test_a_pick_that_goes_on_to_the_backups_is_one_pick() -> None:
    """nginx writes `try` twice, once for each group: the window reaches over both."""
    last = recorded("backups").steps[-2]

    assert (last.kind, last.server, last.until - last.since) == (PICK, "172.23.0.4:8000", 4)


def test_an_event_lies_between_two_lines_of_its_own_worker() -> None:
    """Worker 7's pick may have happened before or after worker 8's."""
    lines = numbered(
        '7 *1 http request line: "GET / HTTP/1.1"',
        '8 *2 http request line: "GET / HTTP/1.1"',
        "7 *1 get least conn peer, try: 3",
        "8 *2 get least conn peer, try: 3",
        "8 *2 get least conn peer, many",
        "7 *1 get least conn peer, many",
    )

    assert trace.events(lines) == [
        Event(PICK, (1, 1), 0, 7, 1795622400, 3, 6),
        Event(PICK, (2, 1), 0, 8, 1795622400, 4, 5),
    ]


def test_requests_of_a_kept_alive_connection_are_distinguished() -> None:
    """By their number on the connection."""
    line = '7 *1 http request line: "GET / HTTP/1.1"'
    pick, free = "7 *1 get rr peer, try: 3", "7 *1 free rr peer 3 0"

    read = trace.events(numbered(line, pick, free, line, line, pick, free))

    assert [event.request for event in read] == [(1, 1), (1, 1), (1, 3), (1, 3)]


def test_a_client_cannot_write_picks_into_the_trace() -> None:
    """A URI that looks like a line of the debug log is ignored."""
    uri = '7 *1 http uri: "/*1 get rr peer, try: 3"'

    assert trace.events(numbered('7 *1 http request line: "GET / HTTP/1.1"', uri)) == []


def test_lines_that_are_not_nginxs_are_skipped() -> None:
    """A cut line, a header on a line of its own, bytes."""
    assert trace.events([b"12:2026/11/2", b"13:Host: a", b"\xff\x00", b""]) == []


def test_an_access_log_without_connections_gives_no_order() -> None:
    """Logs of an older lab have no $connection."""
    assert "connections" in trace.order([], [Hit(("a",), request_id="1")]).gap


def test_a_trace_that_lacks_a_pick_gives_no_order() -> None:
    """An order with holes would make right picks look wrong."""
    hit = Hit(("a",), request_id="1", connection=1, connection_requests=1)

    assert trace.order([], [hit]).gap == "the trace lacks picks of 1 of 1 requests"


def test_picks_for_other_upstreams_are_left_out() -> None:
    """Only the requests of the hits count."""
    lines = numbered(
        '7 *1 http request line: "GET / HTTP/1.1"',
        "7 *1 get rr peer, try: 3",
        '7 *2 http request line: "GET / HTTP/1.1"',
        "7 *2 get rr peer, try: 3",
    )
    hit = Hit(("a",), request_id="1", connection=2, connection_requests=1)

    assert trace.order(lines, [hit]).steps == (Step("1", 0, PICK, False, "a", 7, 1795622400, 4, 5),)
