"""The logs that the lab adds to a config, joined with the verify traffic."""

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.trace import PICK, RELEASE
from nginx_llm_lab.verify.logs import (
    joined,
    timed,
    with_access_log,
    with_debug_log,
    without_auth_requests,
)

TIME = "2026/11/25 21:00:00 [debug] "
LOG = [
    line.encode()
    for line in (
        f'1:{TIME}7#7: *3 http request line: "GET /a?lab=1 HTTP/1.1"',
        f"2:{TIME}7#7: *3 get least conn peer, try: 2",
        f"3:{TIME}7#7: *3 http upstream",
        f'4:{TIME}8#8: *4 http request line: "GET /a?lab=2 HTTP/1.1"',
        f"5:{TIME}8#8: *4 get least conn peer, try: 2",
        f"6:{TIME}8#8: *4 http upstream",
        f"7:{TIME}7#7: *3 free rr peer 2 0",
        f"8:{TIME}8#8: *4 free rr peer 2 0",
    )
]
HITS = [
    Hit(upstream_addr=(server,), status=200, msec=1.0, request_time=0.1, request_id=name, pid=1)
    for name, server in (("two", "b:1"), ("one", "a:1"))
]
TARGETS = {"one": b"/a?lab=1", "two": b"/a?lab=2"}


def test_hits_take_worker_and_connection_from_their_request_line() -> None:
    """The client names its requests by their targets; nginx by connection and number."""
    hits, order = joined(LOG, HITS, TARGETS)

    assert [(hit.request_id, hit.pid, hit.connection) for hit in hits] == [
        ("two", 8, 4),
        ("one", 7, 3),
    ]
    assert [(step.kind, step.server) for step in order or ()] == [
        (PICK, "a:1"),
        (PICK, "b:1"),
        (RELEASE, "a:1"),
        (RELEASE, "b:1"),
    ]


def test_a_pick_for_auth_request_is_left_out() -> None:
    """Its server is picked on the same connection, before that of the request itself."""
    numbers = (1, 20, 30, 40, 200, 300, 4, 5, 6, 7, 8)
    order_of_log = (0, 1, 2, 6, 1, 2, 3, 4, 5, 6, 7)
    log = [
        str(number).encode() + LOG[index][1:]
        for number, index in zip(numbers, order_of_log, strict=True)
    ]

    assert joined(log, HITS, TARGETS)[1] is None
    _, order = joined(without_auth_requests(log), HITS, TARGETS)
    assert [(step.kind, step.server, step.since) for step in order or ()] == [
        (PICK, "a:1", 200),
        (PICK, "b:1", 5),
        (RELEASE, "a:1", 7),
        (RELEASE, "b:1", 8),
    ]


def test_a_log_without_a_request_s_pick_gives_no_order() -> None:
    """Such hits are judged by their times alone."""
    hits, order = joined(LOG[:4], HITS, TARGETS)

    assert order is None
    assert hits == tuple(HITS)


def test_every_error_log_gets_a_debug_log_on_the_same_line() -> None:
    """One in http replaces that of the command line; line numbers of messages must stay."""
    conf = b"# error_log off;\nhttp {\n  error_log  /var/log/x.log warn; }\nerror_log_x y;\n"

    assert with_debug_log(conf, "/d") == (
        b"# error_log off; error_log /d debug;\nhttp {\n"
        b"  error_log  /var/log/x.log warn; error_log /d debug; }\nerror_log_x y;\n"
    )


def test_every_access_log_gets_one_with_nginx_s_own_times() -> None:
    """One in a server replaces that of http; `off` would silence both."""
    conf = b"events {} http {\n server { access_log off; }\n server { access_log /x main; } }\n"

    text = with_access_log(conf, "/a").decode()

    assert text.count("access_log /a nginx_llm_lab;") == 3
    assert text.index("log_format nginx_llm_lab") < text.index("access_log")
    assert "off" not in text
    assert "access_log /x main; access_log /a" in text
    assert text.count("\n") == conf.count(b"\n")


def test_hits_take_nginx_s_own_times() -> None:
    """least_time remembers what nginx measured, which no other clock has to the millisecond."""
    lines = [b"9.5 0.030 0.021 0.022 /a?lab=1", b"9.6 0.040 0.031 0.032 /a?lab=2"]

    two, one = timed(lines, HITS, TARGETS)

    assert (two.msec, two.upstream_header_time, one.upstream_response_time) == (
        9.6,
        (0.031,),
        (0.022,),
    )


def test_hits_keep_the_client_s_times_where_nginx_s_are_incomplete() -> None:
    """A request that nginx sent to no server has none."""
    lines = [b"9.5 0.030 - - /a?lab=1", b"9.6 0.040 0.031 0.032 /a?lab=2"]

    assert timed(lines, HITS, TARGETS) == tuple(HITS)
