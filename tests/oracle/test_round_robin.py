"""Smooth weighted round robin."""

from itertools import islice, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import LabError
from nginx_llm_lab.nginxconf.model import NextUpstream, Server, Upstream
from nginx_llm_lab.oracle import Arrival, Pick, predict


def servers_of(upstream: Upstream, *arrivals: Arrival) -> list[str | None]:
    """The server that answers each arrival."""
    return [pick.server for pick in predict(upstream, arrivals)]


def turns(upstream: Upstream, number: int) -> str:
    """The first turns, as a word of server names."""
    return "".join(
        str(pick.server) for pick in islice(predict(upstream, repeat(Arrival())), number)
    )


def weighted(*weights: int) -> Upstream:
    """Servers a, b, c … of these weights."""
    return Upstream(tuple(Server(chr(97 + n), weight) for n, weight in enumerate(weights)))


def test_a_heavy_server_is_spread_over_the_cycle():
    """Weight 5 beside 1 and 1 gives a a b a c a a, never five in a row."""
    assert turns(weighted(5, 1, 1), 14) == "aabacaa" * 2


def test_three_weights_take_turns_by_score():
    """Weights 3, 2, 1 give a b a c b a."""
    assert turns(weighted(3, 2, 1), 12) == "abacba" * 2


def test_equal_servers_take_turns_in_config_order():
    """The earlier server wins a tie."""
    assert turns(weighted(1, 1, 1), 7) == "abcabca"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 40))
def test_turns_follow_the_scores(weights: list[int], number: int) -> None:
    """Every turn each score grows by its weight; the first highest wins and pays the sum."""
    scores, expected = [0] * len(weights), []
    for _ in range(number):
        scores = [score + weight for score, weight in zip(scores, weights, strict=True)]
        best = scores.index(max(scores))
        scores[best] -= sum(weights)
        expected.append(chr(97 + best))

    assert turns(weighted(*weights), number) == "".join(expected)


def test_a_down_server_has_no_turn():
    """It is never picked, and the others take turns."""
    assert turns(Upstream((Server("a"), Server("b", down=True), Server("c"))), 4) == "acac"


def test_backups_serve_only_when_no_primary_can():
    """Both primaries are down: the two backups take turns."""
    down = (Server("a", down=True), Server("b", down=True))

    assert turns(Upstream((*down, Server("c", backup=True), Server("d", backup=True))), 4) == "cdcd"


def test_a_refused_request_goes_to_the_next_turn():
    """The retry is a turn of its own, without the server just tried."""
    (pick,) = predict(weighted(1, 1, 1), [Arrival(fail={"a": "refused"})])

    assert pick == Pick("b", ("a", "b"))


def test_a_banned_server_comes_back_a_few_turns_late():
    """fail_timeout 2, two requests a second: eligible at t=3, served at t=4."""
    upstream = Upstream((Server("a", fail_timeout=2), Server("b", fail_timeout=2)))
    failed, *later = (Arrival(t=half / 2, fail={"a": "refused"}) for half in range(10))
    healed = [Arrival(t=arrival.t) for arrival in later]

    assert servers_of(upstream, failed, *healed) == [*"bbbbbbbb", "a", "b"]


def test_a_ban_ends_when_the_second_number_passes():
    """Failed at 0.9 with fail_timeout 1: still out at 1.9, in at 2.0."""
    upstream = Upstream((Server("a", 9, fail_timeout=1), Server("b")))
    failed = Arrival(t=0.9, fail={"a": "refused"})

    out = servers_of(upstream, failed, *repeat(Arrival(t=1.999), 3))
    back = servers_of(upstream, failed, *repeat(Arrival(t=2.0), 20))

    assert out == ["b"] * 4
    assert "a" in back


def test_one_request_at_a_time_probes_a_server_that_failed():
    """Choosing a server whose ban has expired bans it again for other requests."""
    upstream = Upstream((Server("a", 9, fail_timeout=1), Server("b")))
    warm = [Arrival(t=0, fail={"a": "refused"}), *repeat(Arrival(t=5), 2)]
    probing = Arrival(t=5, duration=0.5)

    servers = servers_of(upstream, *warm, *repeat(probing, 8))

    assert servers.count("a") == 1


def test_no_failure_count_bans_a_server_without_max_fails():
    """max_fails 0: it fails again and again, and is asked again and again."""
    upstream = Upstream((Server("a", max_fails=0), Server("b")))
    picks = list(predict(upstream, repeat(Arrival(fail={"a": "refused"}), 4)))

    assert sum("a" in pick.attempts for pick in picks) >= 2


def test_a_lone_server_is_never_banned_and_never_retried():
    """Single: the failure is answered, and the next request goes there again."""
    picks = list(predict(weighted(1), repeat(Arrival(fail={"a": "refused"}), 3)))

    assert picks == [Pick("a", ("a",))] * 3


def test_all_servers_banned_is_no_live_upstreams():
    """The next request gets 502 at once, without an attempt."""
    failing = Arrival(fail={"a": "refused", "b": "refused"})

    picks = list(predict(weighted(1, 1), [failing, Arrival()]))

    assert picks == [Pick("b", ("a", "b")), Pick(None, ())]


def test_a_full_server_is_passed_over():
    """max_conns 1 and two requests at once: the second goes on."""
    upstream = Upstream((Server("a", 9, max_conns=1), Server("b")))

    assert servers_of(upstream, *repeat(Arrival(duration=1), 2)) == ["a", "b"]


def test_every_address_of_a_name_is_a_server_of_full_weight():
    """A name with two addresses gets two turns of three."""
    upstream = Upstream((Server("a"), Server("b")))
    picks = predict(upstream, repeat(Arrival(), 6), {"a": ("10.0.0.1:80", "10.0.0.2:80")})

    assert "".join(str(pick.server) for pick in picks) == "aabaab"


def test_an_upstream_of_backups_alone_is_an_error():
    """The message names the upstream and its line."""
    upstream = Upstream((Server("a", backup=True),), file="nginx.conf", line=3)

    with pytest.raises(LabError, match=r'no servers in upstream "llm" in nginx\.conf:3'):
        list(predict(upstream, [Arrival()]))


class Slow:
    """The primaries of round robin with failures, number by number, as NGINX.md words it."""

    def __init__(self, servers: tuple[Server, ...]) -> None:
        self.servers = servers
        zeros = dict.fromkeys(range(len(servers)), 0)
        self.current, self.fails, self.checked, self.accessed = ({**zeros} for _ in range(4))
        self.effective = {n: server.weight for n, server in enumerate(servers)}

    def banned(self, n: int, now: int) -> bool:
        """Whether a server is out for its failures."""
        server = self.servers[n]
        over = server.max_fails != 0 and self.fails[n] >= server.max_fails
        return over and now - self.checked[n] <= server.fail_timeout

    def turn(self, now: int, tried: set[int]) -> int | None:
        """One pass over the servers."""
        fit = [n for n in self.current if n not in tried and not self.banned(n, now)]
        total = sum(self.effective[n] for n in fit)
        for n in fit:
            self.current[n] += self.effective[n]
            self.effective[n] = min(self.effective[n] + 1, self.servers[n].weight)
        if not fit:
            return None
        best = min(fit, key=lambda n: (-self.current[n], n))
        self.current[best] -= total
        if now - self.checked[best] > self.servers[best].fail_timeout:
            self.checked[best] = now
        return best

    def request(self, now: int, failing: set[str]) -> tuple[str | None, tuple[str, ...]]:
        """Who answers and who was tried; refused connections are retried."""
        tried: set[int] = set()
        names: list[str] = []
        while len(names) < len(self.servers):
            n = self.turn(now, tried)
            if n is None:
                return None, tuple(names)
            tried.add(n)
            names.append(self.servers[n].name)
            if names[-1] not in failing:
                self.fails[n] = 0 if self.accessed[n] < self.checked[n] else self.fails[n]
                break
            self.fails[n] += 1
            self.accessed[n] = self.checked[n] = now
            if self.servers[n].max_fails:
                lost = self.servers[n].weight // self.servers[n].max_fails
                self.effective[n] = max(0, self.effective[n] - lost)
        return names[-1], tuple(names)


@st.composite
def groups(draw: st.DrawFn) -> tuple[Server, ...]:
    """Two to four servers of any weight, with any tolerance of failures."""
    numbers = range(draw(st.integers(2, 4)))
    return tuple(
        Server(
            chr(97 + n),
            draw(st.integers(1, 5)),
            draw(st.integers(0, 3)),
            draw(st.integers(0, 3)),
        )
        for n in numbers
    )


@given(
    groups(), st.lists(st.tuples(st.integers(0, 2), st.sets(st.sampled_from("abcd"))), max_size=40)
)
def test_failures_bans_and_regained_weight_follow_the_model(
    servers: tuple[Server, ...], steps: list[tuple[int, set[str]]]
) -> None:
    """Any failures at any seconds: the same servers tried, in the same order."""
    slow, now, expected, arrivals = Slow(servers), 100, [], []
    for pause, failing in steps:
        now += pause
        expected.append(slow.request(now, failing))
        arrivals.append(Arrival(t=now, fail=dict.fromkeys(failing, "refused")))
    upstream = Upstream(servers, next_upstream=NextUpstream())

    picks = [(pick.server, pick.attempts) for pick in predict(upstream, arrivals)]

    assert picks == expected
