"""The simulated nginx picks as nginx does, checked by hand or by other means."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from nginx_llm_lab.evidence.trace import PICK, RELEASE, TIMED, Step
from nginx_llm_lab.nginxconf.model import Server
from nginx_llm_lab.oracle import hash_consistent
from nginx_llm_lab.oracle.base import Peer
from nginx_llm_lab.verdict.simulated import (
    Recorded,
    Traffic,
    Truth,
    address_of,
    ring_of,
    serve,
    server_name,
    sticky_id,
)

BUSY = Traffic(300, users=20, shortest=5.0, mean=60.0)
ALONE = Truth("round_robin", workers=1)  # one worker, so that no lines of the trace overlap


def servers(run: Recorded) -> str:
    """The servers of a log by their numbers from 1, in its order."""
    return "".join(hit.upstream_addr[0].rpartition("-")[2] for hit in run.hits)


def held(run: Recorded) -> Iterator[tuple[str, Counter[str]]]:
    """Each pick's server, with what every server had open before it."""
    open_requests: Counter[str] = Counter()
    for step in run.order:
        if step.kind == PICK:
            yield step.server, open_requests.copy()
        open_requests[step.server] += {PICK: 1, TIMED: 0, RELEASE: -1}[step.kind]


def test_turns_are_spread_by_weight() -> None:
    """5:1:1 gives a a b a c a a."""
    run = serve(replace(ALONE, weights=(5, 1, 1)), Traffic(14), 1)

    assert servers(run) == "11213111121311"


def test_the_same_seed_gives_the_same_run() -> None:
    """Another seed gives another run."""
    first, again, other = (serve(Truth("random"), Traffic(50), seed) for seed in (1, 1, 2))

    assert first == again
    assert servers(first) != servers(other)


def test_least_conn_takes_the_least_loaded() -> None:
    """Every pick has the fewest requests in flight per weight."""
    truth = replace(ALONE, method="least_conn", weights=(3, 2, 1))
    weights = dict(zip(map(server_name, range(3)), truth.weights, strict=True))

    for picked, loads in held(serve(truth, BUSY, 1)):
        assert loads[picked] / weights[picked] == min(loads[n] / weights[n] for n in weights)


@pytest.mark.parametrize("method", ["round_robin", "least_time", "random", "random_two"])
def test_a_full_server_gets_nothing(method: str) -> None:
    """With six slots for twenty users some requests find no live upstream."""
    truth = replace(ALONE, method=method, max_conns=(2, 2, 2))
    picks = list(held(serve(truth, BUSY, 1)))

    assert max(loads[picked] for picked, loads in picks if picked != "llm") == 1
    assert "llm" in [picked for picked, _ in picks]


def test_two_draws_never_end_at_the_most_loaded() -> None:
    """Of three servers, where one has more open than both others."""
    for picked, loads in held(serve(replace(ALONE, method="random_two"), BUSY, 1)):
        most = max(loads.values(), default=0)
        assert loads[picked] < most or list(loads.values()).count(most) != 1 or not most


def test_without_a_zone_each_worker_begins_with_the_first_server() -> None:
    """In a zone only the first request does."""
    for zone, firsts in ((True, {1}), (False, {2})):
        run = serve(Truth("round_robin", zone=zone), Traffic(100), 1)
        first = {hit.pid: hit.upstream_addr[0] for hit in reversed(run.hits)}

        assert len(first) == 2
        assert {list(first.values()).count("backend-1")} == firsts


def test_a_backup_waits_until_no_other_is_left() -> None:
    """Both primary servers are down."""
    backup = replace(ALONE, backup=frozenset({2}))
    down = replace(backup, down=frozenset({0, 1}))

    assert set(servers(serve(backup, Traffic(60), 1))) == {"1", "2"}
    assert set(servers(serve(down, Traffic(60), 1))) == {"3"}


def test_a_rare_share_is_taken_regularly() -> None:
    """1 % of 400 requests, to a server that is down."""
    truth = replace(ALONE, down=frozenset({2}), share=0.01, diverted_to=2)

    assert servers(serve(truth, Traffic(400), 1)).count("3") == 4


def test_a_cookie_leads_back() -> None:
    """Every request with a cookie goes to the server whose address it hashes."""
    run = serve(replace(ALONE, sticky=True), Traffic(200), 1)
    homes = {f"srv={sticky_id(n)}": server_name(n) for n in range(3)}
    bound = [hit for hit in run.hits if hit.http_cookie]

    assert len(bound) > 100
    assert all(hit.upstream_addr == (homes[hit.http_cookie],) for hit in bound)
    assert address_of(0) != address_of(1)


def test_every_request_is_picked_measured_and_released() -> None:
    """Each request has one pick, one measured time and one release, all at its server."""
    run = serve(Truth("least_conn"), BUSY, 1)
    steps: dict[str, list[Step]] = {}
    for step in run.order:
        steps.setdefault(step.request_id, []).append(step)

    assert len(steps) == len(run.hits) == BUSY.number
    for hit in run.hits:
        mine = sorted(
            steps[hit.request_id], key=lambda step: (PICK, TIMED, RELEASE).index(step.kind)
        )
        assert [step.kind for step in mine] == [PICK, TIMED, RELEASE]
        assert {step.server for step in mine} == set(hit.upstream_addr)


def test_lines_of_two_workers_overlap_now_and_then() -> None:
    """Those of one worker never do."""

    def overlaps(workers: int) -> int:
        order = serve(Truth("random", workers=workers), Traffic(1_000, 20), 1).order
        return sum(later.since < step.until for step, later in pairwise(order))

    assert overlaps(1) == 0 < overlaps(2)


def test_the_ring_has_the_points_of_the_oracle() -> None:
    """Two ways to compute 160 points for each unit of weight."""
    peers = [Peer(Server(server_name(n), weight), "") for n, weight in enumerate((3, 1))]

    ring = {point: server_name(number) for point, number in ring_of((3, 1))}

    assert ring == hash_consistent.ring_of(peers)
