"""Picks by load, decided where the log can."""

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict.replay import picks
from nginx_llm_lab.verdict.replay.picks import Tally
from nginx_llm_lab.verdict.replay.windows import EXACT, Windows, windows
from tests.verdict.hits import hit


def seen(upstream: Upstream, hits: list[Hit], slack: float = 2) -> Windows:
    """The windows of hits by a clock that is so many ms off."""
    return windows(upstream, hits).widened(slack)


def least_loaded(upstream: Upstream, hits: list[Hit], slack: float = 2) -> Tally:
    """The tally of a method that picks the least load."""
    return picks.least_loaded(upstream, picks.basis(upstream, hits, seen(upstream, hits, slack)))


def draws_tally(upstream: Upstream, hits: list[Hit]) -> Tally:
    """The tally of random_two."""
    return picks.draws_tally(
        picks.random_two(upstream, picks.basis(upstream, hits, seen(upstream, hits)))
    )


def upstream_of(method: str, *servers: Server) -> Upstream:
    """Servers a and b, or others."""
    return Upstream(servers or (Server("a"), Server("b")), method, measure="last_byte")


def test_the_second_request_at_a_busy_server_is_wrong():
    """b had nothing open; the third pick, at b, is right."""
    hits = [hit("a", 0, 900), hit("a", 100, 900), hit("b", 200, 900)]

    assert least_loaded(upstream_of("least_conn"), hits) == Tally(3, 2, 1, 1)


def test_weights_count():
    """One open at weight 3 is less than one open at weight 1: a is right, b would be wrong."""
    upstream = upstream_of("least_conn", Server("a", 3), Server("b"))
    busy = [hit("a", 0, 900), hit("b", 100, 900)]

    assert least_loaded(upstream, [*busy, hit("a", 200, 900)]).wrong == 0
    assert least_loaded(upstream, [*busy, hit("b", 200, 900)]).wrong == 1


def test_events_within_the_clock_uncertainty_are_not_decided():
    """The first ended 1 ms before the second came: by two clocks nobody knows."""
    hits = [hit("a", 0, 100), hit("a", 101, 200)]

    assert least_loaded(upstream_of("least_conn"), hits).decided == 1
    assert least_loaded(upstream_of("least_conn"), hits, EXACT).decided == 2


def test_picks_near_a_failure_are_not_decided():
    """b may be banned, so a's second request is no fault; long after it is one."""
    failed = hit("a", 0, 900, "b")
    near, far = (hit("a", start, start + 900) for start in (100, 60_000))

    assert least_loaded(upstream_of("least_conn"), [failed, near]).decided == 0
    assert least_loaded(upstream_of("least_conn"), [failed, far]).decided == 1


def test_a_full_server_need_not_be_picked():
    """max_conns 1: b has one open and may not get another, though a has two."""
    upstream = upstream_of("least_conn", Server("a"), Server("b", max_conns=1))
    hits = [hit("a", 0, 900), hit("b", 100, 900), hit("a", 200, 900), hit("a", 300, 900)]

    assert least_loaded(upstream, hits).wrong == 0


def test_a_backup_is_wrong_while_a_primary_has_room():
    """And a server that is down is wrong at any time."""
    backup = upstream_of("least_conn", Server("a"), Server("b", backup=True))
    down = upstream_of("least_conn", Server("a"), Server("b", down=True))

    assert least_loaded(backup, [hit("b", 0, 9)]).wrong == 1
    assert least_loaded(down, [hit("b", 0, 9)]).wrong == 1


def test_the_estimated_time_counts_for_least_time():
    """a took 300 ms, b 30: a free a is wrong, even while b has one open."""
    warm = [hit("a", 0, 300), hit("b", 1000, 1030)]
    busy = [hit("b", 2000, 2900), hit("b", 2100, 2900)]

    assert least_loaded(upstream_of("least_time"), [*warm, *busy]).wrong == 0
    assert least_loaded(upstream_of("least_time"), [*warm, hit("a", 2000, 2300)]).wrong == 1


def test_the_busiest_of_three_is_wrong_for_two_draws():
    """c has two open, a and b one each: c cannot win."""
    upstream = upstream_of("random_two", Server("a"), Server("b"), Server("c"))
    busy = [hit("a", 0, 900), hit("b", 50, 900), hit("c", 100, 900), hit("c", 150, 900)]

    right = draws_tally(upstream, [*busy, hit("a", 200, 900)])
    wrong = draws_tally(upstream, [*busy, hit("c", 200, 900)])

    assert (right.wrong, wrong.wrong, wrong.first) == (0, 1, 4)
