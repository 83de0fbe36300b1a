"""Unforeseen faults never pass, and a right nginx in an odd fleet never fails.

Each fault is a way to pick, written here and simulated; nobody told the verdict of it.
"""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import md5
from typing import Any
from zlib import crc32

import pytest
from msgspec import structs

from nginx_llm_lab.nginxconf.methods import METHODS
from nginx_llm_lab.nginxconf.model import Upstream
from nginx_llm_lab.verdict import power, simulated
from nginx_llm_lab.verdict.power import claim_of, truth_of, usual_traffic
from nginx_llm_lab.verdict.simulated import (
    Call,
    Memory,
    Picker,
    Recorded,
    Simulation,
    Traffic,
    serve,
)

ALL = int(os.environ.get("LAB_POWER_SEEDS", "2")) > 2  # else a part of the fleets and rules
Rule = Callable[[Picker, Sequence[int], Sequence[int], Call], int]
RELOADED = 152  # the request at which a fault of the middle of a run begins

EQUAL, FIVE, UNEQUAL = (1, 1, 1), (1,) * 5, (3, 2, 1)


def least_of(fit: Sequence[int], loads: Sequence[float]) -> list[int]:
    """The servers with the least load, whatever their weights."""
    return [n for n in fit if loads[n] == min(loads[other] for other in fit)]


def turns_begin_again(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """A reload in the middle of the run, after which the first server comes first."""
    if call.number == RELOADED:
        picker.memory.scores[:] = [0] * len(picker.memory.scores)
    return picker.turn(fit)


def loads_begin_again(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """A reload in the middle of the run, which forgets what is open."""
    if call.number == RELOADED:
        picker.memory.open[:] = [0] * len(picker.memory.open)
    return picker.least(fit, picker.memory.open)


def slow_start(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """The first server gets a quarter of its turns for a while."""
    warm = call.number > RELOADED or call.number % 4 == 0
    return picker.turn(fit if warm else [n for n in fit if n != 0])


def slow_start_of_draws(picker: Picker, _group: Sequence[int], _fit: object, call: Call) -> int:
    """The first server is drawn rarely in the first quarter of the run."""
    weights: list[float] = list(picker.truth.weights)
    weights[0] *= 1 if call.number > 900 else 0.2
    return picker.rng.choices(range(len(weights)), weights)[0]


def in_blocks(picker: Picker, _group: Sequence[int], _fit: object, _call: Call) -> int:
    """a a a b b c: weighted, not smooth."""
    cycle = [n for n, weight in enumerate(picker.truth.weights) for _ in range(weight)]
    picker.memory.scores[0] += 1
    return cycle[(picker.memory.scores[0] - 1) % len(cycle)]


def weights_forgotten(
    picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call
) -> int:
    """Fewest requests in flight, not per weight; ties in turn."""
    tied = least_of(fit, picker.memory.open)
    return tied[0] if len(tied) == 1 else picker.turn(tied)


def ties_drawn(picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    """Fewest requests in flight, ties at random."""
    return picker.rng.choice(least_of(fit, picker.memory.open))


def ties_to_the_first(
    picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call
) -> int:
    """Fewest requests in flight, ties to the first server."""
    return least_of(fit, picker.memory.open)[0]


def stale(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """Fewest requests in flight, as it was up to eight requests ago."""
    if call.number % 8 == 0 or not any(picker.memory.header):
        picker.memory.header[:] = [held + 1 for held in picker.memory.open]
    return picker.least(fit, [held - 1 for held in picker.memory.header])


def time_alone(picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    """The least average time, whatever is in flight."""
    return picker.least(fit, [time // 20 for time in picker.memory.header])


def time_unrounded(picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    """The average time in ms, not in steps of 20."""
    memory = picker.memory
    loads = [time * (1 + held) for time, held in zip(memory.header, memory.open, strict=True)]
    return picker.least(fit, loads)


def two_and_the_worse(picker: Picker, group: Sequence[int], _fit: object, _call: Call) -> int:
    """The more loaded of two draws."""
    return max(picker.rng.sample(group, 2), key=lambda n: picker.memory.open[n])


def two_maybe_alike(picker: Picker, group: Sequence[int], _fit: object, _call: Call) -> int:
    """The less loaded of two draws, which may be the same server."""
    return min(picker.draw(group), picker.draw(group), key=lambda n: picker.memory.open[n])


def three_draws(picker: Picker, group: Sequence[int], _fit: object, _call: Call) -> int:
    """The least loaded of three."""
    return min(picker.rng.sample(group, 3), key=lambda n: picker.memory.open[n])


def sometimes_one_draw(picker: Picker, group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """Two draws, and one in every sixth request."""
    if call.number % 6 == 0:
        return picker.draw(group)
    return simulated.METHODS["random_two"](picker, group, fit, call)


def never_again(picker: Picker, group: Sequence[int], _fit: object, _call: Call) -> int:
    """A draw of another server than the last one."""
    last = picker.memory.scores[0]
    picker.memory.scores[0] = picker.rng.choice([n for n in group if n != last])
    return picker.memory.scores[0]


def sometimes_in_turn(picker: Picker, group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """A draw, and a turn for every third request."""
    return picker.turn(fit) if call.number % 3 == 0 else picker.draw(group)


def key_of(text: bytes, group: Sequence[int]) -> int:
    """The server of a key by nginx's hash, of equal weights."""
    return group[(crc32(text) >> 16 & 0x7FFF) % len(group)]


def upper_case(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """The hash of the URI in capitals."""
    return key_of(call.uri.upper().encode(), group)


def with_a_separator(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """The hash of the URI and a bar."""
    return key_of(f"{call.uri}|".encode(), group)


def without_the_slash(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """The hash of the URI without its first character."""
    return key_of(call.uri[1:].encode(), group)


def all_of_the_crc(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """All 32 bits of the checksum, not the upper 15."""
    return group[crc32(call.uri.encode()) % len(group)]


def all_four_octets(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """The whole address, not its first three octets."""
    chain = 89
    for octet in map(int, call.address.split(".")):
        chain = (chain * 113 + octet) % 6271
    return group[chain % len(group)]


def fewer_points(picker: Picker, _group: Sequence[int], _fit: object, call: Call) -> int:
    """A ring of 150 points for each unit of weight."""
    ring: dict[int, int] = {}
    for number, weight in enumerate(picker.truth.weights):
        point = bytes(4)
        for _ in range(150 * weight):
            value = crc32(simulated.server_name(number).encode() + b"\0" + point)
            ring.setdefault(value, number)
            point = value.to_bytes(4, "little")
    key = crc32(call.uri.encode())
    return ring[min((point for point in ring if point >= key), default=min(ring))]


def md5_ring(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """The server whose name and key have the highest MD5."""
    return max(group, key=lambda n: md5(f"{n}{call.uri}".encode(), usedforsecurity=False).digest())


def cookies_lost(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """A turn for every twentieth client that comes back."""
    home = [n for n in fit if call.cookie == f"srv={simulated.sticky_id(n)}"]
    return home[0] if home and call.number % 20 else picker.turn(fit)


def cookies_mixed_up(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """The server behind the one that the cookie names."""
    home = [n for n in fit if call.cookie == f"srv={simulated.sticky_id(n)}"]
    return fit[(home[0] + 1) % len(fit)] if home else picker.turn(fit)


def one_turn_skipped(picker: Picker, _group: Sequence[int], fit: Sequence[int], call: Call) -> int:
    """Every fiftieth request skips a turn."""
    if call.number % 50 == 49:
        picker.turn(fit)
    return picker.turn(fit)


def ties_to_the_last(picker: Picker, _group: object, fit: Sequence[int], _call: Call) -> int:
    """Turns in which the last of equal scores wins."""
    scores, weights = picker.memory.scores, picker.truth.weights
    for n in fit:
        scores[n] += weights[n]
    best = max(fit, key=lambda n: (scores[n], n))
    scores[best] -= sum(weights[n] for n in fit)
    return best


def whole_loads(picker: Picker, _group: Sequence[int], fit: Sequence[int], _call: Call) -> int:
    """Requests in flight divided by the weight, rounded down."""
    weights = picker.truth.weights
    tied = least_of(fit, [held // weights[n] for n, held in enumerate(picker.memory.open)])
    return tied[0] if len(tied) == 1 else picker.turn(tied)


def from_a_bag(picker: Picker, group: Sequence[int], _fit: object, _call: Call) -> int:
    """Each server once in every three picks, in a random order."""
    scores = picker.memory.scores
    left = [n for n in group if not scores[n]] or list(group)
    if len(left) == len(group):
        scores[:] = [0] * len(scores)
    chosen = picker.rng.choice(left)
    scores[chosen] = 1
    return chosen


def draws_without_weights(picker: Picker, group: Sequence[int], _fit: object, _call: Call) -> int:
    """Two equally likely servers, of which the less loaded for its weight wins."""
    first, second = picker.rng.sample(group, 2)
    held, weights = picker.memory.open, picker.truth.weights
    return first if held[second] * weights[first] > held[first] * weights[second] else second


def last_three_octets(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """The hash of the address without its first octet."""
    chain = 89
    for octet in map(int, call.address.split(".")[1:]):
        chain = (chain * 113 + octet) % 6271
    return group[chain % len(group)]


def with_the_upstreams_name(_picker: Picker, group: Sequence[int], _fit: object, call: Call) -> int:
    """The hash of the upstream's name and the URI."""
    return key_of(f"llm{call.uri}".encode(), group)


def cookies_rarely_lost(
    picker: Picker, group: Sequence[int], fit: Sequence[int], call: Call
) -> int:
    """A turn for every fiftieth client that comes back."""
    home = [n for n in fit if call.cookie == f"srv={simulated.sticky_id(n)}"]
    return home[0] if home and call.number % 50 else picker.turn(fit)


def bound_for_free(picker: Picker, _group: object, fit: Sequence[int], call: Call) -> int:
    """A bound request does not count as its server's turn."""
    home = [n for n in fit if call.cookie == f"srv={simulated.sticky_id(n)}"]
    return home[0] if home else picker.turn(fit)


RULES: Sequence[tuple[str, tuple[int, ...], Rule]] = (
    ("round_robin", EQUAL, turns_begin_again),
    ("round_robin", EQUAL, slow_start),
    ("round_robin", UNEQUAL, in_blocks),
    ("least_conn", EQUAL, loads_begin_again),
    ("least_conn", UNEQUAL, weights_forgotten),
    ("least_conn", EQUAL, ties_drawn),
    ("least_conn", EQUAL, ties_to_the_first),
    ("least_conn", EQUAL, stale),
    ("least_time", EQUAL, time_alone),
    ("least_time", EQUAL, time_unrounded),
    ("random", EQUAL, never_again),
    ("random", EQUAL, sometimes_in_turn),
    ("random", EQUAL, slow_start_of_draws),
    ("random_two", EQUAL, two_and_the_worse),
    ("random_two", EQUAL, two_maybe_alike),
    ("random_two", FIVE, three_draws),
    ("random_two", EQUAL, sometimes_one_draw),
    ("hash", EQUAL, upper_case),
    ("hash", EQUAL, with_a_separator),
    ("hash", EQUAL, without_the_slash),
    ("hash", EQUAL, all_of_the_crc),
    ("ip_hash", EQUAL, all_four_octets),
    ("hash_consistent", EQUAL, fewer_points),
    ("hash_consistent", EQUAL, md5_ring),
    ("sticky", EQUAL, cookies_lost),
    ("sticky", EQUAL, cookies_mixed_up),
    ("round_robin", EQUAL, one_turn_skipped),
    ("round_robin", EQUAL, ties_to_the_last),
    ("least_conn", UNEQUAL, whole_loads),
    ("random", EQUAL, from_a_bag),
    ("random_two", UNEQUAL, draws_without_weights),
    ("hash", EQUAL, with_the_upstreams_name),
    ("ip_hash", EQUAL, last_three_octets),
    ("sticky", EQUAL, cookies_rarely_lost),
    ("sticky", EQUAL, bound_for_free),
)


# what a log without nginx's order cannot tell: who won a tie, faults at few of the picks
BEYOND_A_LOG = (ties_drawn, loads_begin_again, sometimes_one_draw, draws_without_weights)


@pytest.mark.parametrize("traced", [True, False] if ALL else [True])
@pytest.mark.parametrize(("method", "weights", "rule"), RULES if ALL else RULES[::2])
def test_another_way_to_pick_never_passes(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    weights: tuple[int, ...],
    rule: Rule,
    traced: bool,
) -> None:
    """With as many requests as a PASS needs, with and without nginx's own order."""
    monkeypatch.setitem(simulated.METHODS, "unforeseen", rule)
    claim = claim_of(method, truth_of(method, weights))
    monkeypatch.setattr(Picker, "home", lambda *_: None)  # the rule reads the cookie, if any
    truth = replace(truth_of(method, weights), method="unforeseen")

    (verdict,) = power.runs(method, claim, truth, [1], traced=traced)

    assert verdict.word == "FAIL" or not traced, verdict
    assert verdict.word != "PASS" or rule in BEYOND_A_LOG, verdict


@pytest.mark.parametrize(
    ("method", "claimed", "really"),
    [
        ("random", {"max_conns": (3, 3, 3)}, {"max_conns": (2, 2, 2)}),
        ("random", {"max_conns": (3, 3, 3)}, {"max_conns": (4, 4, 4)}),
        ("random", {}, {"max_conns": (8, 8, 8)}),
        ("random_two", {"max_conns": (3, 3, 3)}, {"max_conns": (2, 2, 2)}),
        ("least_conn", {"max_conns": (3, 3, 3)}, {"max_conns": (4, 4, 4)}),
        ("least_conn", {"max_conns": (3, 3, 3)}, {"max_conns": (2, 2, 2)}),
        ("round_robin", {"backup": frozenset({2})}, {"backup": frozenset({2}), "share": 0.02}),
        ("least_conn", {"backup": frozenset({2})}, {"backup": frozenset({2}), "share": 0.02}),
        ("round_robin", {"backup": frozenset({2})}, {}),
    ],
)
def test_another_limit_or_backup_never_passes(
    method: str, claimed: dict[str, Any], really: dict[str, Any]
) -> None:
    """A limit that is one off or not in the config; a backup that gets 2 %, or is none."""
    right = truth_of(method, EQUAL)
    claim = claim_of(method, replace(right, **claimed))
    truth = replace(right, diverted_to=2, **really)

    (verdict,) = power.runs(method, claim, truth, [1])

    assert verdict.word == "FAIL", verdict


class TwoZones(Simulation):
    """Four workers, of which each two share their state."""

    def memories_of_workers(self) -> list[Memory]:
        """The first two workers' memory, and the others'."""
        one, other = self.new_memory(), self.new_memory()
        return [one, one, other, other]


@pytest.mark.parametrize("method", ["round_robin", "least_conn", "least_time", "random_two"])
def test_two_zones_never_pass(method: str) -> None:
    """As if an old and a new generation of workers served side by side."""
    truth = replace(truth_of(method, EQUAL), workers=4)
    claim = claim_of(method, truth)
    run = TwoZones(truth, usual_traffic(method, claim), random.Random(1)).run()

    verdict = power.verdict_on(claim, run, sequential=False, traced=True)

    assert verdict.word == "FAIL", verdict


# --- right nginxes in odd fleets -------------------------------------------------------------

ODD: dict[str, dict[str, Any]] = {
    "100 to 1": {"weights": (100, 1)},
    "ten servers": {"weights": (1,) * 10},
    "ten weights": {"weights": tuple(range(1, 11))},
    "one request each": {"weights": EQUAL, "max_conns": (1, 1, 1)},
    "one limit": {"weights": UNEQUAL, "max_conns": (1, 0, 0)},
    "all but one down": {"weights": EQUAL, "down": frozenset({0, 2})},
    "down and backup": {"weights": EQUAL, "down": frozenset({2}), "backup": frozenset({2})},
    "two backups, one down": {"weights": FIVE, "down": frozenset({4}), "backup": frozenset({3, 4})},
    "only backups live": {"weights": EQUAL, "down": frozenset({0}), "backup": frozenset({1, 2})},
    "limits and a backup": {
        "weights": EQUAL,
        "max_conns": (2, 2, 0),
        "backup": frozenset({2}),
    },
    "one worker": {"weights": UNEQUAL, "workers": 1},
    "sixteen workers": {"weights": UNEQUAL, "workers": 16},
    "no zone, as claimed": {"weights": UNEQUAL, "zone": False},
}


def in_odd_fleets() -> list[tuple[str, str]]:
    """Each method in each fleet that nginx allows it."""
    every = [
        (method, fleet)
        for method in METHODS
        for fleet, change in ODD.items()
        if METHODS[method].backup or "backup" not in change
    ]
    return every if ALL else every[::5]


@pytest.mark.parametrize(("method", "fleet"), in_odd_fleets())
def test_a_right_nginx_never_fails_in_an_odd_fleet(method: str, fleet: str) -> None:
    """Whatever the servers, 250 requests, 1 or 20 at a time, with and without a trace."""
    truth = replace(truth_of(method, EQUAL), **ODD[fleet])
    claim = claim_of(method, truth)
    for traffic in (Traffic(250), Traffic(250, 20, 5.0, 60.0)):
        run = serve(truth, traffic, 1)
        for traced in (True, False):
            verdict = power.verdict_on(
                claim, run, sequential=traffic.users == 1, traced=traced and traffic.users > 1
            )

            assert verdict.word != "FAIL", verdict


@pytest.mark.parametrize(
    "method", ["round_robin", "least_conn", "least_time", "random", "random_two"]
)
def test_a_right_nginx_never_fails_where_two_lines_name_one_server(method: str) -> None:
    """The log does not tell the first line's requests from the second's."""
    truth = truth_of(method, EQUAL)
    claim = twins_of(claim_of(method, truth))
    for traffic in (Traffic(250), Traffic(250, 20, 5.0, 60.0)):
        run = twins_in(serve(truth, traffic, 1))

        verdict = power.verdict_on(claim, run, sequential=traffic.users == 1, traced=True)

        assert verdict.word != "FAIL", verdict


def twins_of(claim: Upstream) -> Upstream:
    """The claim whose second server has the name of the first."""
    first, second, *others = claim.servers
    return replace(claim, servers=(first, replace(second, name=first.name), *others))


def twins_in(run: Recorded) -> Recorded:
    """The run of such servers."""
    same = {"backend-2": "backend-1"}
    hits = (
        structs.replace(hit, upstream_addr=tuple(same.get(n, n) for n in hit.upstream_addr))
        for hit in run.hits
    )
    order = (structs.replace(step, server=same.get(step.server, step.server)) for step in run.order)
    return Recorded(tuple(hits), tuple(order))
