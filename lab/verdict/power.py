"""Measure the reliability of verdicts: judge correct and faulty simulated nginx instances."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..nginxconf.methods import METHODS, STICKY
from ..nginxconf.model import Server, Sticky, Upstream
from ..word import Word
from . import judge
from .case import Verdict
from .needed import requests_for_pass
from .simulated import Recorded, Traffic, Truth, address_of, serve, server_name

NEVER = 10**6  # seconds until a time would be halved, which the simulated nginx does not do
FEWEST = 300
USERS = 20  # where loads or draws decide


@dataclass(frozen=True, slots=True)
class Cell:
    """One claim against one truth: the count of each word, and the explanations of the FAILs."""

    claim: str
    truth: str
    words: Counter[str]
    looks: Counter[str]
    right: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "claim": self.claim,
            "truth": self.truth,
            "right": self.right,
            "verdicts": {word: self.words[word] for word in (Word.PASS, Word.FAIL, Word.UNSURE)},
            "looks_like": dict(self.looks.most_common()),
        }


def claim_of(method: str, truth: Truth) -> Upstream:
    """The correct config for a truth, without its faults."""
    servers = tuple(
        Server(
            server_name(n),
            weight,
            fail_timeout=NEVER,
            max_conns=truth.max_conns[n] if truth.max_conns else 0,
            down=n in truth.down,
            backup=n in truth.backup,
        )
        for n, weight in enumerate(truth.weights)
    )
    record = METHODS[method]
    key = truth.key if record.key else ""
    bound = Sticky("cookie", ("$cookie_srv",)) if record is STICKY else None
    return Upstream(servers, record.runs, key, "header", bound, truth.zone)


def truth_of(method: str, weights: tuple[int, ...]) -> Truth:
    """A correct nginx with a method of the lab."""
    return Truth(METHODS[method].runs, weights, sticky=method == STICKY.name)


def usual_traffic(method: str, upstream: Upstream, number: int = 0) -> Traffic:
    """The traffic of `lab run`: concurrent for methods that need it, else sequential."""
    number = number or requests_for_pass(upstream, FEWEST)
    record = METHODS[method]
    if record.by_load or record.by_draw:
        return Traffic(number, USERS, 5.0, 60.0)
    return Traffic(number, 10 if record.by_turns else 1)


def verdict_on(claim: Upstream, run: Recorded, *, sequential: bool, traced: bool) -> Verdict:
    """Judge a simulated log."""
    addresses = {server_name(n): (address_of(n),) for n in range(len(claim.servers))}
    order = run.order if traced else None
    return judge(claim, run.hits, sequential=sequential, addresses=addresses, order=order)


def wrong_truths(method: str, weights: tuple[int, ...]) -> Iterator[tuple[str, Truth]]:
    """Simulated nginx instances that differ from a claim, each with its name."""
    right, servers = truth_of(method, weights), range(len(weights))
    claimed = METHODS[method]
    for name, other in METHODS.items():
        # visitors that arrive at random look like random
        distinguishable = not (claimed.by_draw_alone and other is STICKY)
        bound = (other is STICKY) != (claimed is STICKY)
        if distinguishable and (bound or other.runs != claimed.runs):
            yield name, truth_of(name, weights)
    if len(set(weights)) > 1:
        yield "weights ignored", replace(right, weights=(1,) * len(weights))
        first = max(servers, key=lambda n: weights[n])
        last = min(servers, key=lambda n: weights[n])
        swapped = list(weights)
        swapped[first], swapped[last] = swapped[last], swapped[first]
        yield "weights swapped", replace(right, weights=tuple(swapped))
    heavier = (weights[0] + 1, *weights[1:])
    yield "weight of the first off by one", replace(right, weights=heavier)
    if not METHODS[right.method].stateless:
        yield "no zone", replace(right, zone=False)
    if depends_on_order(right):
        yield "another order", replace(right, order=tuple(reversed(servers)))
    if METHODS[right.method].key:
        yield "another key", replace(right, key="$remote_addr")
    for share in (0.2, 0.1):
        yield (
            f"{share:.0%} diverted to the last",
            replace(right, share=share, diverted_to=len(weights) - 1),
        )


def depends_on_order(truth: Truth) -> bool:
    """Whether the order of the servers affects picks, except in rare fallbacks."""
    weights, record = truth.weights, METHODS[truth.method]
    turned = len(weights) > 2 or weights[0] == weights[-1]  # 2:1 in turn is a cycle either way
    return record.in_order and (turned or record.by_request)


def limited(method: str, weights: tuple[int, ...]) -> Iterator[tuple[str, Truth, Truth]]:
    """Claims with server parameters that nginx ignores: a label, the claim, the truth."""
    right = truth_of(method, weights)
    last = len(weights) - 1
    down = replace(right, down=frozenset({last}))
    yield "1% to a server that is down", down, replace(down, share=0.01, diverted_to=last)
    if METHODS[method].backup:
        backup = replace(right, backup=frozenset({last}))
        yield "1% to a backup without need", backup, replace(backup, share=0.01, diverted_to=last)
        yield "right, with a backup", backup, backup
    if METHODS[method].by_load or METHODS[method].by_draw:
        # draws reach a limit that fits all users on average; least_conn only a lower one
        limit = USERS // len(weights) + 1 if METHODS[method].by_draw_alone else 3
        full = replace(right, max_conns=(limit,) * len(weights))
        yield "max_conns ignored", full, replace(full, max_conns=())
        yield "right, with max_conns", full, full


def matrix(
    method: str,
    weights: tuple[int, ...],
    seeds: int,
    number: int = 0,
    *,
    traced: bool = True,
) -> Iterator[Cell]:
    """Every truth against the claim of one method, each with as many runs as seeds."""
    right = truth_of(method, weights)
    claim = claim_of(method, right)
    yield cell(method, "right", claim, right, seeds, number, traced, right=True)
    for name, truth in wrong_truths(method, weights):
        yield cell(method, name, claim, truth, seeds, number, traced)
    for name, claimed, truth in limited(method, weights):
        claim = claim_of(method, claimed)
        same = claimed == truth
        yield cell(method, name, claim, truth, seeds, number, traced, right=same)


def cell(
    method: str,
    name: str,
    claim: Upstream,
    truth: Truth,
    seeds: int,
    number: int,
    traced: bool,
    *,
    right: bool = False,
) -> Cell:
    """One claim against one truth."""
    verdicts = list(runs(method, claim, truth, range(seeds), number, traced=traced))
    looks = Counter(
        verdict.why.rpartition("looks like ")[2]
        for verdict in verdicts
        if verdict.word == Word.FAIL and "looks like " in verdict.why
    )
    return Cell(method, name, Counter(verdict.word for verdict in verdicts), looks, right)


def runs(
    method: str,
    claim: Upstream,
    truth: Truth,
    seeds: Iterable[int],
    number: int = 0,
    *,
    traced: bool = True,
) -> Iterator[Verdict]:
    """The verdict on one run for each seed."""
    traffic = usual_traffic(method, claim, number)
    for seed in seeds:
        run = serve(truth, traffic, seed)
        sequential = traffic.users == 1
        yield verdict_on(claim, run, sequential=sequential, traced=traced and not sequential)


def table(cells: Iterable[Cell]) -> Iterator[str]:
    """The cells as lines of text, one truth per line."""
    yield f"{'claim':<16}{'what nginx ran':<32}{'PASS':>6}{'FAIL':>6}{'UNSURE':>8}  looks like"
    for cell in cells:
        counts = [cell.words[word] for word in ("PASS", "FAIL", "UNSURE")]
        looks = cell.looks.most_common(1)
        name = f"{looks[0][0]} ({looks[0][1]})" if looks else ""
        text = f"{cell.claim:<16}{cell.truth:<32}{counts[0]:>6}{counts[1]:>6}{counts[2]:>8}  {name}"
        yield text.rstrip()
