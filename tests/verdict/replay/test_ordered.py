"""Replay nginx's own order of picks and releases: each pick is weighed exactly."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from nginx_llm_lab.evidence import access_log, trace
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.trace import PICK, RELEASE, TIMED, Step
from nginx_llm_lab.nginxconf.model import Server, Sticky, Upstream
from nginx_llm_lab.verdict.replay import ordered
from nginx_llm_lab.verdict.simulated import Recorded, Traffic, Truth, serve, server_name

RECORDED = Path(__file__).parents[2] / "data/trace"
THREE = tuple(Server(f"backend-{number}:8000") for number in (1, 2, 3))
FAR = tuple(replace(server, name=server.name.replace(":8000", ":8001")) for server in THREE)
ADDRESSES = {
    f"172.23.0.{number + 1}:{port}": f"backend-{number}:{port}"
    for number in (1, 2, 3)
    for port in (8000, 8001)
}
CLAIMS = {
    "round_robin": Upstream(THREE),
    "least_conn": Upstream(THREE, "least_conn"),
    "least_time": Upstream(THREE, "least_time", measure="header"),
    "ip_hash": Upstream(THREE, "ip_hash"),
    "hash": Upstream(THREE, "hash", "$request_uri"),
    "hash_consistent": Upstream(THREE, "hash_consistent", "$request_uri"),
    "sticky": Upstream(THREE, sticky=Sticky("cookie", ("$cookie_route",))),
    "single": Upstream(THREE[2:]),
    "retries": Upstream(
        (replace(FAR[0], fail_timeout=1), THREE[1], replace(FAR[2], max_fails=2)), "least_conn"
    ),
    "no_live": Upstream((FAR[0], FAR[2]), "least_conn"),
    "backups": Upstream((*FAR[:2], replace(THREE[2], backup=True)), "least_conn"),
    "hash_retries": Upstream((THREE[0], *FAR[1:]), "hash", "$request_uri"),
}


def by_id(hits: Iterable[Hit]) -> dict[str, Hit]:
    """The hits by their requests' ids."""
    return {hit.request_id: hit for hit in hits}


def recorded(name: str, claim: Upstream) -> list[ordered.Weighed]:
    """The picks of a log that a real nginx wrote, weighed under a claim."""
    log = access_log.read((RECORDED / f"{name}.jsonl").read_bytes().splitlines())
    hits = list(access_log.named(log.hits, ADDRESSES))
    order = trace.order((RECORDED / f"{name}.log").read_bytes().splitlines(), hits)
    return ordered.weigh(claim, by_id(hits), order.steps)


def replayed(claim: Upstream, *words: str) -> list[float]:
    """The highest weight of each pick; `1a` picks a for request 1, `-1` releases it.

    Joined by `|`, events overlap; `1a@7` is done by worker 7.
    """
    steps: list[Step] = []
    servers: dict[str, str] = {}
    for number, together in enumerate(words):
        for word in together.split("|"):
            name, _, worker = word.partition("@")
            kind = RELEASE if name.startswith("-") else PICK
            request = name[1:] if kind == RELEASE else name[:-1]
            server = servers[request] if kind == RELEASE else name[-1]
            servers[request] = server
            steps.append(
                Step(request, 0, kind, False, server, int(worker or 1), 0, number, number + 1)
            )
    hits = [Hit((server,), 200, request_id=request) for request, server in servers.items()]
    return [pick.high for pick in ordered.weigh(claim, by_id(hits), steps)]


def claim_of(method: str, *weights: int, zone: bool = True, max_conns: int = 0) -> Upstream:
    """Servers a, b and so on, by their weights."""
    servers = [
        Server("abc"[number], weight, max_conns=max_conns) for number, weight in enumerate(weights)
    ]
    return Upstream(tuple(servers), method, zone=zone)


@pytest.mark.parametrize("name", CLAIMS)
def test_a_right_nginx_made_every_pick_as_claimed(name: str) -> None:
    """Retries, bans, backups, no live upstreams, cookies: what a real nginx did weighs 1."""
    weights = {(pick.low, pick.high) for pick in recorded(name, CLAIMS[name])}

    assert weights == {(1.0, 1.0)}


def test_draws_are_weighed_by_what_was_open() -> None:
    """With one request open at each of two servers the third wins as soon as it is drawn."""
    weights = [
        round(pick.high, 2) for pick in recorded("random_two", Upstream(THREE, "random_two"))
    ]

    assert weights == [0.33, 0.33, 0.5, 0.67, 0.33, 0.33, 0.33, 0.33, 0.33, 0.5, 0.17, 0.67]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("least_conn", Upstream(THREE)),
        ("least_conn", Upstream((replace(THREE[0], weight=2), *THREE[1:]), "least_conn")),
        ("least_conn", Upstream(THREE, "least_conn", zone=False)),
        ("least_conn", Upstream(THREE[::-1], "least_conn")),
        ("round_robin", Upstream(THREE[::-1])),
        ("round_robin", Upstream(THREE, "ip_hash")),
        ("retries", Upstream((FAR[0], THREE[1], FAR[2]), "least_conn")),
    ],
)
def test_a_wrong_claim_is_contradicted(name: str, wrong: Upstream) -> None:
    """Another method, weight, order, ban, or no zone makes a pick impossible."""
    assert min(pick.high for pick in recorded(name, wrong)) == 0


def test_the_least_loaded_server_is_the_only_one_allowed() -> None:
    """a holds request 1, so request 2 goes to b; after b was released it is free again."""
    least = claim_of("least_conn", 1, 1)

    assert replayed(least, "1a", "2b", "-2", "3b") == [1, 1, 1]
    assert replayed(least, "1a", "2b", "-2", "3a") == [1, 1, 0]


def test_overlapping_events_may_have_happened_in_either_order() -> None:
    """Request 3 may go to a if request 1 was released just before, else not."""
    least = claim_of("least_conn", 1, 1, 1)

    assert replayed(least, "1a", "2b", "3c", "-1@1|4a@2") == [1, 1, 1, 1]
    assert replayed(least, "1a", "2b", "3c", "4b@2", "-1@1") == [1, 1, 1, 0]
    assert replayed(least, "1a", "2b", "3c", "-1@1", "4b@2") == [1, 1, 1, 0]


def test_a_swap_does_not_excuse_a_pick_that_no_order_allows() -> None:
    """Turns: two overlapping picks take the next two servers, in whatever order."""
    turns = claim_of("round_robin", 1, 1, 1)

    assert replayed(turns, "1b@1|2a@2", "3c") == [1, 1, 1]
    assert 0 in replayed(turns, "1b@1|2b@2", "3c")


def test_the_turns_go_on_after_a_swap() -> None:
    """Weights 2 and 1 give a, b, a, a, b, a, whichever request took which of the first two."""
    turns = claim_of("round_robin", 2, 1)

    assert replayed(turns, "1b@1|2a@2", "3a", "4a", "5b") == [1, 1, 1, 1, 1]
    assert replayed(turns, "1b@1|2a@2", "3a", "4a", "5a") == [1, 1, 1, 1, 0]


def test_a_full_server_is_not_allowed() -> None:
    """max_conns 1: a is full, so both next requests cannot be a's."""
    full = claim_of("round_robin", 1, 1, max_conns=1)

    assert replayed(full, "1a", "2b", "-2", "3b") == [1, 1, 1]
    assert replayed(full, "1a", "2b", "-2", "3a") == [1, 1, 0]


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "least_time"])
def test_large_groups_are_set_back_too(method: str) -> None:
    """After an overlap the model tries both orders; 30 servers are more than a scan is made for."""
    servers = tuple(Server(name) for name in "abcdefghijklmnopqrstuvwxyzABCD")
    overlap = (
        "1a",
        "2b@1|3c@2",
        *(f"{number}{server.name}" for number, server in enumerate(servers[3:], 4)),
    )

    assert set(replayed(Upstream(servers, method, measure="header"), *overlap)) == {1}


def test_without_a_zone_each_worker_takes_its_own_turns() -> None:
    """Both workers begin with a; in a zone the second request is b's."""
    first_of_two = ("1a@1", "2a@2", "3b@1", "4b@2")

    assert replayed(claim_of("round_robin", 1, 1, zone=False), *first_of_two) == [1, 1, 1, 1]
    assert 0 in replayed(claim_of("round_robin", 1, 1), *first_of_two)


def test_the_orders_of_overlapping_steps_keep_each_workers_own() -> None:
    """Two steps of worker 1 stay in order; worker 2's may be anywhere among them."""
    first, second = (Step(str(n), 0, PICK, False, "a", 1, 0, n, n + 1) for n in (1, 2))
    other = Step("3", 0, PICK, False, "a", 2, 0, 1, 3)

    begin = ordered.firsts([first, second, other])

    assert [step.request_id for step in begin] == ["1", "3"]
    assert [step.request_id for step in ordered.firsts([second, other])] == ["2", "3"]


def overlapping(run: Recorded, size: int, seed: int) -> list[Step]:
    """The steps of a run, so that now and then `size` neighbours of many workers overlap.

    Each step's lines hold its true place; those of one worker's steps do not overlap.
    """
    rng, steps = random.Random(seed), list(run.order)
    for first in range(size, len(steps) - size, 3 * size):
        cluster = steps[first : first + size]
        begin, end = cluster[0].since, cluster[-1].until
        places: dict[int, list[int]] = defaultdict(list)
        for place, step in enumerate(cluster):
            places[step.worker].append(place)
        for picks in places.values():
            cuts = [begin, *(cluster[place].since for place in picks[1:]), end]
            for place, since, until in zip(picks, cuts, cuts[1:], strict=False):
                cluster[place] = structs.replace(cluster[place], since=since, until=until)
        rng.shuffle(cluster)
        steps[first : first + size] = sorted(cluster, key=lambda step: step.since)
    return steps


def claimed(truth: Truth) -> Upstream:
    """A claim that is right about a simulated nginx."""
    servers = [
        Server(server_name(n), weight, max_conns=truth.max_conns[n] if truth.max_conns else 0)
        for n, weight in enumerate(truth.weights)
    ]
    key = truth.key if truth.method.startswith("hash") else ""
    return Upstream(tuple(servers), truth.method, key, measure="header")


def test_turns_are_known_again_after_an_overlap_of_many() -> None:
    """Twelve picks in any order leave the next turn open; three more tell it."""
    turns = claim_of("round_robin", 1, 1, 1, max_conns=50)
    picks = [f"{n}{'abc'[n % 3]}" for n in range(12)]
    overlap = "|".join(f"{pick}@{n}" for n, pick in enumerate(picks))

    assert replayed(turns, overlap, "12c", "13a", "14b", "15c")[12:] == [1, 1, 1, 1]
    assert replayed(turns, overlap, "12c", "13a", "14b", "15a")[12:] == [1, 1, 1, 0]


BUSY = Traffic(200, users=40, shortest=20, mean=40)
MANY = {
    "round_robin": Truth("round_robin", (3, 2, 1), 24),
    "max_conns": Truth("round_robin", (1, 1, 1), 24, max_conns=(10, 15, 20)),
    "least_conn": Truth("least_conn", (1, 1, 1, 1), 24),
    "least_conn, weights": Truth("least_conn", (3, 2, 1), 24),
    "least_time": Truth("least_time", (2, 1, 1), 24),
    "random": Truth("random", (2, 1, 1), 24, max_conns=(20, 12, 12)),
    "random_two": Truth("random_two", (1, 1, 1), 24),
    "ip_hash": Truth("ip_hash", (1, 1, 1), 24),
    "hash": Truth("hash", (1, 2, 1), 24, max_conns=(10, 20, 20)),
    "hash_consistent": Truth("hash_consistent", (1, 1, 1), 24),
}


def weighed_of(claim: Upstream, truth: Truth, size: int, seed: int) -> Sequence[ordered.Weighed]:
    """The picks of a simulated nginx with large overlaps, weighed under a claim."""
    run = serve(truth, BUSY, seed)
    return ordered.weigh(claim, by_id(run.hits), overlapping(run, size, seed))


def test_least_time_has_its_times_though_another_method_logs_none() -> None:
    """Else a least_conn nginx would agree with a claim of least_time, whose times stayed 0."""
    servers = tuple(Server(server_name(number)) for number in range(3))
    run = serve(Truth("least_conn"), Traffic(100, 20, 5.0, 60.0), 1)
    logged = [step for step in run.order if step.kind != TIMED]

    weighed = ordered.weigh(Upstream(servers, "least_time"), by_id(run.hits), logged)

    assert sum(pick.high < 1e-6 for pick in weighed) > 20


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize("name", MANY)
def test_large_overlaps_do_not_contradict_a_right_nginx(name: str, size: int) -> None:
    """24 workers, 8 or 40 events in any order: no pick of a right nginx weighs 0."""
    for seed in range(2):
        weighed = weighed_of(claimed(MANY[name]), MANY[name], size, seed)

        assert [pick.step for pick in weighed if not pick.high] == []


def wrong_instead(name: str) -> Truth:
    """A tenth of the requests goes to the last server; draws ignore limits and loads."""
    if name == "random":
        return replace(MANY[name], max_conns=())
    if name == "random_two":
        return replace(MANY[name], method="random")
    return replace(MANY[name], share=0.1, diverted_to=-1)


@pytest.mark.parametrize(("size", "kept"), [(8, 0.6), (40, 0.2)])
@pytest.mark.parametrize("name", MANY)
def test_large_overlaps_do_not_excuse_a_wrong_nginx(name: str, size: int, kept: float) -> None:
    """Most picks that are wrong by the true order are wrong by the order that is known."""
    run = serve(wrong_instead(name), BUSY, 1)

    def wrong(steps: Sequence[Step]) -> int:
        weighed = ordered.weigh(claimed(MANY[name]), by_id(run.hits), steps)
        return sum(pick.high < 1e-6 for pick in weighed)

    assert wrong(overlapping(run, size, 1)) >= kept * wrong(run.order) > 0


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (Upstream((Server("a"), Server("a"))), "share a name"),
        (Upstream(THREE, "least_time", measure="header inflight"), "inflight"),
        (Upstream(THREE, sticky=Sticky("learn", ("$cookie_a",))), "sticky"),
    ],
)
def test_an_undecidable_claim_has_a_reason(claim: Upstream, why: str) -> None:
    """Two servers of one name, least_time's milliseconds, and `sticky learn` cannot be replayed."""
    assert why in ordered.undecidable(claim, {})
