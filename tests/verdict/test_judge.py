"""Verdicts on correct and faulty nginxes: logs of a small, independent simulator."""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import md5
from ipaddress import IPv4Address
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Sticky, Upstream
from nginx_llm_lab.oracle import Arrival, predict
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.verdict import judge as judge_all
from nginx_llm_lab.verdict.rules.turns import TURNS as OFF
from nginx_llm_lab.word import Word

SLOW = (1.0, 2.0, 3.0)
NEVER = 10**6  # seconds

Pick = Callable[["Worker", Sequence[int], random.Random], int]


@dataclass
class Worker:
    """One worker's memory: scores of the turns, open requests, average times."""

    scores: list[int]
    open: list[int]
    times: list[float]


def turn(worker: Worker, weights: Sequence[int], among: Sequence[int]) -> int:
    """Smooth weighted round robin among some servers."""
    for n in among:
        worker.scores[n] += weights[n]
    best = max(among, key=lambda n: (worker.scores[n], -n))
    worker.scores[best] -= sum(weights[n] for n in among)
    return best


def round_robin(worker: Worker, weights: Sequence[int], _rng: random.Random) -> int:
    """Pick by turns."""
    return turn(worker, weights, range(len(weights)))


def least(worker: Worker, weights: Sequence[int], loads: Sequence[float]) -> int:
    """The least load per weight, turns among equals."""
    shares = [load / weight for load, weight in zip(loads, weights, strict=True)]
    tied = [n for n, share in enumerate(shares) if share == min(shares)]
    return tied[0] if len(tied) == 1 else turn(worker, weights, tied)


def least_conn(worker: Worker, weights: Sequence[int], _rng: random.Random) -> int:
    """The fewest open requests per weight."""
    return least(worker, weights, worker.open)


def least_time(worker: Worker, weights: Sequence[int], _rng: random.Random) -> int:
    """The average time in steps of 20 ms, times open requests, per weight."""
    steps = [5000 if time > 5000 else (int(time) // 20 + 1) * 20 for time in worker.times]
    loads = [step * (1 + held) for step, held in zip(steps, worker.open, strict=True)]
    return least(worker, weights, loads)


def drawn(_worker: Worker, weights: Sequence[int], rng: random.Random) -> int:
    """A draw by weight."""
    return rng.choices(range(len(weights)), weights)[0]


def two(worker: Worker, weights: Sequence[int], rng: random.Random) -> int:
    """Two draws, the less loaded wins, the second on a tie."""
    first = second = drawn(worker, weights, rng)
    while second == first:
        second = drawn(worker, weights, rng)
    worse = worker.open[second] * weights[first] > worker.open[first] * weights[second]
    return first if worse else second


@dataclass(frozen=True)
class Nginx:
    """What really runs: a method, its weights, its workers, and how fast its servers are."""

    pick: Pick
    weights: Sequence[int] = (1, 1, 1)
    workers: int = 4
    zone: bool = True
    speeds: Sequence[float] = (1, 1, 1, 1, 1)


def clock(now: float, rng: random.Random) -> int:
    """The time on a worker's clock at `now`, in ms: that of its last reading."""
    lag = rng.uniform(1, 6) if rng.random() < 0.02 else rng.expovariate(5)
    return int(1_700_000_000_000 + now - lag)


@lru_cache(maxsize=128)
def serve(nginx: Nginx, users: int, number: int, seed: int) -> list[Hit]:
    """The log of requests of mixed length, `users` at a time; the lines come as requests end."""
    rng = random.Random(seed)
    servers = len(nginx.weights)
    memories = [Worker([0] * servers, [0] * servers, [0.0] * servers) for _ in range(nginx.workers)]
    if nginx.zone:
        memories = memories[:1] * nginx.workers
    events: list[tuple[float, int, tuple[int, ...]]] = [
        (rng.random(), -n, ()) for n in range(users)
    ]
    hits: list[Hit] = []
    serial = begun = 0
    while events:
        now, _, event = heapq.heappop(events)
        serial += 1
        if not event:
            if begun == number:
                continue
            begun += 1
            who, start = rng.randrange(nginx.workers), clock(now, rng)
            heapq.heappush(events, (now + rng.expovariate(7), serial, (who, start)))
        elif len(event) == 2:
            who, start = event
            server = nginx.pick(memories[who], nginx.weights, rng)
            memories[who].open[server] += 1
            lasts = min(400, 5 + rng.expovariate(1 / 60)) * nginx.speeds[server]
            heapq.heappush(events, (now + lasts, serial, (who, start, server, int(lasts))))
        else:
            who, start, server, lasted = event
            memory = memories[who]
            memory.open[server] -= 1
            old = memory.times[server]
            memory.times[server] = int(old * 0.95 + lasted * 0.05 + 0.5) if old else lasted
            end = max(clock(now, rng), start + lasted)
            hits.append(hit(server, start, end, lasted, who, len(hits)))
            heapq.heappush(events, (now + rng.expovariate(2), serial, ()))
    return hits


def hit(server: int, start: int, end: int, lasted: int, who: int, number: int) -> Hit:
    """One line of the log."""
    return Hit(
        (f"backend-{server + 1}",),
        200,
        end / 1000,
        (end - start) / 1000,
        f"id{number}",
        pid=100 + who,
        upstream_status=(200,),
        upstream_connect_time=(0.0,),
        upstream_header_time=(lasted / 1000,),
        upstream_response_time=(lasted / 1000,),
    )


def claim(method: str, *weights: int, **more: Any) -> Upstream:
    """The upstream of the claim; the simulator does not halve average times."""
    servers = tuple(
        Server(f"backend-{n + 1}", w, fail_timeout=NEVER)
        for n, w in enumerate(weights or (1, 1, 1))
    )
    return Upstream(servers, method, measure="header", **more)


def judge(*arguments: object, **more: Any) -> Verdict:
    """Judge a log by the claim alone: short ones exclude no alternatives."""
    return judge_all(*arguments, alone=True, **more)  # type: ignore[arg-type] # as judge takes them


def words(
    upstream: Upstream, nginx: Nginx, runs: int, users: int = 8, number: int = 1000
) -> set[str]:
    """The words of the verdicts on that many runs."""
    logs = (serve(nginx, users, number, seed) for seed in range(runs))
    return {judge(upstream, hits, sequential=users == 1).word for hits in logs}


def sequence(servers: str, **more: Any) -> list[Hit]:
    """Requests one after the other, by the numbers of their servers."""
    plain = (hit(int(n) - 1, 1000 * t, 1000 * t + 5, 5, 0, t) for t, n in enumerate(servers))
    return [structs.replace(hit, **more) for hit in plain]


# --- text ----------------------------------------------------------------------------------


def test_a_pass_has_its_split_and_reason():
    """The word, the method, the numbers, the reason."""
    verdict = judge(claim("round_robin", 5, 1, 1), sequence("1121311"), sequential=True)

    assert str(verdict) == (
        "PASS   round_robin  backend-1: 5, backend-2: 1, backend-3: 1  (exact over 7 hits)"
    )


def test_a_fail_names_the_first_request_that_went_elsewhere():
    """Its number, its id, where it went, where it should have gone."""
    verdict = judge(claim("round_robin"), sequence("1213"), sequential=True)

    assert str(verdict) == (
        "FAIL   round_robin  backend-1: 2, backend-2: 1, backend-3: 1   "
        "request 3 (id id2) went to backend-1, expected backend-3"
    )


def test_an_unsure_names_the_command_that_would_settle_it():
    """How many hits it takes, and how to send them."""
    verdict = judge(claim("random"), sequence("112323123131"), sequential=True)

    assert str(verdict) == "UNSURE random       12 hits; 800 would settle it: lab run random -n 800"


def test_a_port_that_all_servers_share_is_left_out():
    """The port is the same for all, so it is omitted."""
    upstream = Upstream((Server("backend-1:8000"), Server("backend-2:8000")))
    hits = [Hit((name,)) for name in ("backend-1:8000", "backend-2:8000")]

    assert judge(upstream, hits, sequential=True).split_text == "backend-1: 1, backend-2: 1"


def test_no_hits_are_unsure():
    """Without evidence there is no verdict."""
    assert judge(claim("round_robin"), [], sequential=True).word == "UNSURE"


def test_a_server_that_the_upstream_does_not_have_fails():
    """The config judged is not the one that ran."""
    verdict = judge(claim("round_robin", 1), [Hit(("10.0.0.9:80",))], sequential=True)

    assert verdict.why == 'hit 1 went to "10.0.0.9:80", which is not in the upstream'


# --- exact, one after the other ------------------------------------------------------------


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "least_time"])
def test_idle_servers_of_equal_weight_take_turns(method: str):
    """Under all three; and a wrong turn is seen."""
    assert judge(claim(method), sequence("123123"), sequential=True).word == "PASS"
    assert judge(claim(method), sequence("123132"), sequential=True).word == "FAIL"


def test_workers_without_a_zone_are_seen_one_after_the_other():
    """Two workers that each begin with the first server, though a zone is claimed."""
    nginx = Nginx(round_robin, zone=False)

    assert words(claim("round_robin"), nginx, 20, users=1, number=50) == {"FAIL"}


def test_workers_that_claim_no_zone_are_judged_each_for_itself():
    """Their own turns are exact."""
    nginx = Nginx(round_robin, zone=False)

    assert words(claim("round_robin", zone=False), nginx, 20, users=1) == {"PASS"}
    assert words(claim("round_robin", zone=False), Nginx(drawn), 5, users=1) == {"FAIL"}


def test_least_time_one_at_a_time_is_exact_from_the_logged_times():
    """Servers of unequal speed: the log has the very numbers that nginx averages."""
    right, wrong = Nginx(least_time, speeds=SLOW), Nginx(least_conn, speeds=SLOW)

    assert words(claim("least_time"), right, 20, users=1, number=300) == {"PASS"}
    assert words(claim("least_time"), wrong, 5, users=1, number=300) == {"FAIL"}


@pytest.mark.parametrize("measure", ["last_byte inflight", "header inflight"])
def test_inflight_changes_nothing_one_at_a_time(measure: str):
    """The lab need not know the age of running requests where none runs."""
    upstream = replace(claim("least_time"), measure=measure)
    hits = serve(Nginx(least_time, speeds=SLOW), 1, 400, 1)

    assert judge_all(upstream, hits, sequential=True).word == "PASS"
    assert judge_all(upstream, hits, sequential=False).word == "UNSURE"


def test_a_start_that_was_not_fresh_may_be_anywhere_in_the_cycle():
    """The turns fit from the third on; without turns of its own there is no telling."""
    late, none = sequence("312312"), sequence("112233")

    assert judge(claim("round_robin"), late, sequential=True, fresh=False).word == "PASS"
    assert judge(claim("round_robin"), none, sequential=True, fresh=False).word == "UNSURE"


# --- the rest of a log whose beginning is not judged ---------------------------------------


def since(hits: Sequence[Hit], share: float = 0.5) -> float:
    """A moment in a log."""
    return hits[int(share * len(hits))].msec


def words_since(upstream: Upstream, nginx: Nginx, runs: int = 20, users: int = 8) -> set[str]:
    """The verdicts on the second half of that many runs."""
    logs = (serve(nginx, users, 1500, seed) for seed in range(runs))
    return {
        judge(upstream, hits, sequential=False, fresh=False, since=since(hits)).word
        for hits in logs
    }


@pytest.mark.parametrize("weights", [(1, 1, 1), (3, 2, 1), (5, 1, 1, 7)])
def test_turns_are_seen_wherever_they_stand(weights: tuple[int, ...]):
    """Each server has its share at every moment; other weights and draws have not."""
    upstream = claim("round_robin", *weights)
    other = (*weights[:-1], weights[-1] + 2)

    assert words_since(upstream, Nginx(round_robin, weights)) == {"PASS"}
    assert words_since(upstream, Nginx(round_robin, other)) == {"FAIL"}
    assert words_since(upstream, Nginx(drawn, weights)) == {"FAIL"}


def test_a_server_that_has_not_come_back_is_seen():
    """By turns and by load: the hits since then have none of its own."""
    for method, pick in (("round_robin", round_robin), ("least_conn", least_conn)):
        hits = serve(Nginx(pick, (1, 1, 1, 1)), 8, 1500, 1)
        lost = [
            hit for hit in hits if hit.msec < since(hits) or hit.upstream_addr != ("backend-2",)
        ]

        verdict = judge(
            claim(method, 1, 1, 1, 1), lost, sequential=False, fresh=False, since=since(hits)
        )

        assert verdict.word == "FAIL", verdict


def test_load_from_before_counts_and_is_not_judged():
    """Requests that began earlier hold their servers; wrong picks among them do not matter."""
    right, wrong = Nginx(least_conn), Nginx(drawn)
    early = serve(wrong, 8, 1500, 3)
    gap = early[-1].msec + 1 - serve(right, 8, 1500, 3)[0].msec
    late = [structs.replace(hit, msec=hit.msec + gap) for hit in serve(right, 8, 1500, 3)]

    assert words_since(claim("least_conn"), right) == {"PASS"}
    assert words_since(claim("least_conn"), wrong) == {"FAIL"}
    both = [*early, *late]
    start = late[0].msec - late[0].request_time
    assert judge(claim("least_conn"), both, sequential=False, since=start).word == "PASS"
    assert judge(claim("least_conn"), both, sequential=False).word == "FAIL"


def test_few_hits_do_not_tell_turns_from_draws():
    """Counts that draws could also produce are not accepted as turns."""
    hits = serve(Nginx(round_robin, (3, 2, 1)), 8, 60, 1)[3:]

    assert judge(claim("round_robin", 3, 2, 1), hits, sequential=False, fresh=False).word != "FAIL"


@given(
    weights=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    broken=st.lists(st.sets(st.integers(0, 5)), max_size=60),
)
def test_turns_keep_to_their_shares_after_any_failures(
    weights: list[int], broken: list[set[int]]
) -> None:
    """The bound by which turns are judged: failures and bans, then N picks without, for every N."""
    upstream = claim("round_robin", *weights)
    upstream = replace(
        upstream, servers=tuple(replace(server, fail_timeout=1) for server in upstream.servers)
    )
    failing = [{f"backend-{n + 1}": "refused" for n in lost} for lost in broken]
    hard = [Arrival(t=n / 5, fail=fail) for n, fail in enumerate(failing)]
    calm = [Arrival(t=len(hard) / 5 + 9) for _ in range(3 * sum(weights) + 20)]
    picks = list(predict(upstream, [*hard, *calm]))[len(hard) :]
    picks = picks[max(weights) * len(weights) :]

    for number, server in enumerate(upstream.servers):
        share = weights[number] / sum(weights)
        count = 0
        for n, pick in enumerate(picks, 1):
            count += pick.server == server.name
            assert abs(count - n * share) <= OFF


# --- by key --------------------------------------------------------------------------------


def test_hashed_keys_are_compared_one_by_one():
    """The key's CRC32 names the server; one hit elsewhere is a FAIL."""
    upstream = claim("hash", key="$request_uri")
    uris = [f"/{n}" for n in range(60)]
    hits = [
        structs.replace(hit, request_uri=uri)
        for hit, uri in zip(
            sequence("".join(str((crc32(u.encode()) >> 16 & 0x7FFF) % 3 + 1) for u in uris)),
            uris,
            strict=True,
        )
    ]
    misrouted = [
        *hits[:-1],
        structs.replace(hits[-1], upstream_addr=hits[-2].upstream_addr, request_uri="/1"),
    ]

    assert judge(upstream, hits, sequential=True).word == "PASS"
    assert judge(upstream, hits[::-1], sequential=False).word == "PASS"
    assert "FAIL" in {judge(upstream, misrouted, sequential=way).word for way in (True, False)}


def test_addresses_are_hashed_for_ip_hash():
    """A client's whole /24 on one server, and a neighbour elsewhere fails."""
    upstream = claim("ip_hash")

    def home(address: str) -> str:
        chain = 89
        for octet in IPv4Address(address).packed[:3]:
            chain = (chain * 113 + octet) % 6271
        return str(chain % 3 + 1)

    clients = [f"10.{n}.0.{n}" for n in range(40)]
    hits = [
        structs.replace(hit, remote_addr=client)
        for hit, client in zip(sequence("".join(map(home, clients))), clients, strict=True)
    ]

    assert judge(upstream, hits, sequential=False).word == "PASS"
    assert judge(upstream, hits[1:] + hits[:1], sequential=False).word == "PASS"
    assert judge(upstream, sequence("123", remote_addr="10.0.0.1"), sequential=False).word == "FAIL"


def test_cookies_bind_to_the_md5_of_an_address():
    """Unbound requests take their turns beside them; a bound one elsewhere fails."""
    addresses = {f"backend-{n}": (f"10.0.0.{n}:80",) for n in (1, 2, 3)}
    cookie = f"srv={md5(b'10.0.0.3:80', usedforsecurity=False).hexdigest()}"
    upstream = claim("least_conn", sticky=Sticky("cookie", ("$cookie_srv",)))
    bound = [structs.replace(hit, http_cookie=cookie) for hit in sequence("3333")]
    misrouted = [structs.replace(hit, http_cookie=cookie) for hit in sequence("3331")]

    def word(hits: list[Hit], sequential: bool) -> str:
        return judge(upstream, hits, sequential=sequential, addresses=addresses).word

    assert word(sequence("12") + bound, True) == word(sequence("12") + bound, False) == "PASS"
    assert word(misrouted, True) == word(misrouted, False) == "FAIL"


def test_servers_that_resolve_late_may_come_in_any_order():
    """DNS answered for the third first."""
    servers = tuple(Server(f"backend-{n}", resolve=True) for n in (1, 2, 3))

    assert judge(Upstream(servers), sequence("312312"), sequential=True).word == "PASS"
    assert judge(Upstream(servers), sequence("312321"), sequential=True).word == "FAIL"


# --- exact, with failures ------------------------------------------------------------------


def refused(*servers: int, start: float, status: int = 200) -> Hit:
    """A request that every server but the last refused."""
    number = len(servers)
    return Hit(
        tuple(f"backend-{server}" for server in servers),
        status,
        start,
        0.0,
        upstream_status=(*[502] * (number - 1), status),
        upstream_connect_time=(*[None] * (number - 1), 0.0),
        upstream_header_time=(*[None] * (number - 1), 0.001),
        upstream_response_time=(*[0.0] * (number - 1), 0.0),
    )


def test_a_refusal_is_followed_through_its_ban():
    """backend-1 refuses at 0 and is out; with fail_timeout 2 it is back after 3 s, in debt."""
    upstream = Upstream(tuple(Server(f"backend-{n}", fail_timeout=2) for n in (1, 2)))
    out = [refused(2, start=100 + half / 2) for half in range(1, 8)]
    hits = [refused(1, 2, start=100), *out, refused(1, start=104)]

    assert judge(upstream, hits, sequential=True).word == "PASS"
    assert judge(upstream, hits[:3] + hits[-1:], sequential=True).word == "FAIL"


def test_a_second_that_ticks_between_log_and_pick_is_allowed_for():
    """The request was logged at 102.999 and picked when nginx's clock showed 103."""
    upstream = Upstream(tuple(Server(f"backend-{n}", fail_timeout=2) for n in (1, 2)))

    def hits(at: float) -> list[Hit]:
        later = [refused(2, start=at), refused(2, start=at + 0.1), refused(1, start=at + 0.2)]
        return [refused(1, 2, start=100), *later]

    assert judge(upstream, hits(102.999), sequential=True).word == "PASS"
    assert judge(upstream, hits(102.7), sequential=True).word == "FAIL"


def test_no_live_upstreams_is_predicted():
    """Both servers refuse; nginx then logs the upstream's own name."""
    upstream = Upstream((Server("backend-1"), Server("backend-2")), name="llm")
    failed = structs.replace(
        refused(1, 2, start=100, status=502),
        upstream_connect_time=(None, None),
        upstream_header_time=(None, None),
    )
    busy = Hit(("llm",), 502, 101, upstream_status=(502,))

    verdict = judge(upstream, [failed, busy], sequential=True)

    assert verdict.word == "PASS"
    assert verdict.split_text == "backend-1: 0, backend-2: 1, no live upstreams: 1"


def test_a_keys_second_server_is_excused_only_while_its_first_is_out():
    """Concurrent, hashed: without a failure of the first, the second is wrong."""
    upstream = replace(
        claim("hash", key="$request_uri"), servers=tuple(Server(f"backend-{n}") for n in (1, 2, 3))
    )
    chain = [(crc32(b"/x") >> 16 & 0x7FFF)]
    chain.append(chain[0] + (crc32(b"1/x") >> 16 & 0x7FFF))
    first, second = (total % 3 + 1 for total in chain)
    failed = structs.replace(refused(first, second, start=100), request_uri="/x")
    after = structs.replace(refused(second, start=101), request_uri="/x")
    late = structs.replace(refused(second, start=200), request_uri="/x")

    assert first != second
    assert judge(upstream, [failed, after], sequential=False).word == "PASS"
    assert judge(upstream, [failed, late], sequential=False).word == "FAIL"


def test_nobody_is_left_where_the_servers_that_are_not_down_failed():
    """Concurrent, hashed: backend-1 refuses, backend-2 is down, so the next finds nobody."""
    servers = (Server("backend-1"), Server("backend-2", down=True))
    upstream = replace(claim("hash", key="$request_uri"), servers=servers)
    failed = structs.replace(
        refused(1, start=100, status=502), upstream_connect_time=(None,), upstream_header_time=()
    )
    nobody = Hit(("llm",), 502, 101, request_uri="/x", upstream_status=(502,))

    assert judge(upstream, [failed, nobody], sequential=False).word == "PASS"
    assert judge(upstream, [refused(1, start=100), nobody], sequential=False).word == "FAIL"


def test_a_server_is_banned_by_a_request_that_nobody_answered():
    """backend-2 refused one that then found backend-1 full: backend-1 gets all for its ban."""
    servers = (Server("backend-1", max_conns=2), Server("backend-2"))
    upstream = replace(claim("least_conn"), servers=servers)
    answered = [hit(0, 500 * n, 500 * n + 900, 900, 0, n) for n in range(10)]
    failed = Hit(
        ("backend-2", "llm"), 502, 0.3, 0.0, upstream_status=(502, 502),
        upstream_connect_time=(None, None), upstream_header_time=(None, None),
        upstream_response_time=(0.0, 0.0),
    )  # fmt: skip

    assert judge(upstream, answered, sequential=False).word == "FAIL"
    assert judge(upstream, [failed, *answered], sequential=False).word != "FAIL"


def test_turns_with_failures_at_once_are_pass_or_unsure():
    """The unknown order within a millisecond decides."""
    hits = [refused(1, 2, start=100), *(refused(1, start=100) for _ in range(5))]

    assert judge(claim("round_robin"), hits, sequential=False).word == "UNSURE"


def test_retries_follow_the_configured_rules():
    """A 500 that was retried though proxy_next_upstream does not list it."""
    retried = structs.replace(
        refused(1, 2, start=100),
        upstream_status=(500, 200),
        upstream_connect_time=(0.0, 0.0),
        upstream_header_time=(0.0, 0.0),
    )
    listed = NextUpstream(frozenset({"http_500"}))

    assert judge(claim("round_robin"), [retried], sequential=True).word == "FAIL"
    allowing = claim("round_robin", next_upstream=listed)
    assert judge(allowing, [retried], sequential=True).word == "PASS"


# --- many at once: right nginxes never fail, wrong ones always do ---------------------------

RIGHT = [
    (claim("round_robin", 3, 2, 1), Nginx(round_robin, (3, 2, 1))),
    (claim("random", 3, 2, 1), Nginx(drawn, (3, 2, 1))),
    (claim("random_two"), Nginx(two, speeds=SLOW)),
    (claim("random_two", 3, 1, 1), Nginx(two, (3, 1, 1))),
    (claim("least_conn"), Nginx(least_conn, speeds=SLOW)),
    (claim("least_conn", 3, 1, 1), Nginx(least_conn, (3, 1, 1))),
    (claim("least_time"), Nginx(least_time, speeds=SLOW)),
]
TURNS, HEAVY = Nginx(round_robin, speeds=SLOW), (2, 1, 1)
WRONG = [
    (claim("round_robin"), Nginx(round_robin, HEAVY)),
    (claim("round_robin"), Nginx(least_conn, speeds=SLOW)),
    (claim("random"), Nginx(drawn, HEAVY)),
    (claim("random"), TURNS),
    (claim("random_two"), Nginx(two, HEAVY, speeds=SLOW)),
    (claim("random_two"), Nginx(two, zone=False, speeds=SLOW)),
    (claim("random_two"), Nginx(drawn, speeds=SLOW)),
    (claim("random_two"), TURNS),
    (claim("least_conn"), Nginx(least_conn, HEAVY)),
    (claim("least_conn"), Nginx(least_conn, zone=False)),
    (claim("least_conn"), Nginx(two)),
    (claim("least_conn"), TURNS),
    (claim("least_time"), Nginx(least_time, HEAVY, speeds=SLOW)),
    (claim("least_time"), Nginx(least_time, zone=False, speeds=SLOW)),
    (claim("least_time"), Nginx(least_conn, speeds=SLOW)),
    (claim("least_time"), TURNS),
]


def name(case: tuple[Upstream, Nginx]) -> str:
    """A claim and the nginx that really runs."""
    upstream, nginx = case
    really = f"{nginx.pick.__name__}{''.join(map(str, nginx.weights))}"
    return f"{upstream.method}-{really}{'' if nginx.zone else '-no-zone'}"


@pytest.mark.parametrize("case", RIGHT, ids=map(name, RIGHT))
def test_a_right_nginx_never_fails(case: tuple[Upstream, Nginx]):
    """A hundred short runs, 8 requests at a time, four workers whose clocks lag now and then."""
    assert "FAIL" not in words(*case, runs=100, number=200)
    assert words(*case, runs=5) == {"PASS"}


@pytest.mark.parametrize("case", WRONG, ids=map(name, WRONG))
def test_a_wrong_nginx_always_fails(case: tuple[Upstream, Nginx]):
    """Twenty runs: other weights, no zone, another method."""
    assert words(*case, runs=20, number=900) == {"FAIL"}


def test_an_idle_random_two_is_judged_by_its_odds():
    """One request at a time: 3 to 1 gives the light server three quarters."""
    assert words(claim("random_two", 3, 1), Nginx(two, (3, 1)), 20, 1, 2000) == {"PASS"}
    assert words(claim("random_two", 3, 1), Nginx(drawn, (3, 1)), 5, 1, 2000) == {"FAIL"}


def test_too_high_a_concurrency_is_unsure():
    """Two hundred at a time: the log's milliseconds do not show which server had the fewest."""
    verdict = judge(claim("least_conn"), serve(Nginx(least_conn), 200, 1000, 1), sequential=False)

    assert verdict.word == "UNSURE"
    assert "could be decided" in verdict.why
    assert verdict.command.startswith("lab run least_conn -c ")
    assert verdict.decided is not None
    assert verdict.decided < 0.25


def test_least_conn_without_a_zone_is_judged_worker_by_worker():
    """Each has its own loads, and says so."""
    nginx = Nginx(least_conn, workers=2, zone=False)

    verdict = judge(claim("least_conn", zone=False), serve(nginx, 8, 1000, 1), sequential=False)

    assert verdict.word == "PASS"
    assert "each of 2 workers passes by itself" in verdict.why


def test_a_verdict_is_a_value():
    """Two of the same are equal."""
    assert Verdict(Word.PASS, "random", "a: 1", "why") == Verdict(
        Word.PASS, "random", "a: 1", "why"
    )


@pytest.mark.parametrize("method", ["random", "random_two"])
@pytest.mark.parametrize("sequential", [True, False])
def test_a_draw_among_one_live_server_is_exact(method, sequential):
    """The other one is down: 20 draws bring no second server, and turns give the only one."""
    servers = (Server("a", weight=2), Server("b", weight=7, down=True))
    upstream = Upstream(servers, method)
    at_a = [Hit(("a",), 200, msec=n / 10, upstream_status=(200,)) for n in range(50)]
    at_b = [Hit(("b",), 200, msec=n / 10, upstream_status=(200,)) for n in range(50)]

    assert judge(upstream, at_a, sequential=sequential).word == "PASS"
    assert judge(upstream, at_b, sequential=sequential).word == "FAIL"
