"""Compare what nginx did with what it must do: PASS, FAIL or UNSURE, and why."""

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np

from lab.logs import Hit
from lab.oracle import Arrival, Balancer, Pick, balancer, load, odds, predict, replay
from lab.oracle.base import group_of
from lab.oracle.load import EXACT, WIDE, Draws, Tally
from lab.oracle.random import odds_of
from lab.oracle.random_two import pair_odds
from lab.oracle.windows import windows
from lab.upstream import Upstream

HASHES = ("ip_hash", "hash", "hash_consistent")
DRAWS = ("random", "random_two")
BY_LOAD = {"least_conn": load.least_conn, "least_time": load.least_time}

DECIDED = 0.25  # share of picks that the log must decide for a PASS by load
DECIDED_DRAWS = 0.1  # the same for two draws, which few loads decide
WRONG = 0.02  # share of decided picks that may look wrong: workers' clocks now and then lag
BLURRED = 0.05  # the same at the log's own grain
OUT_OF_TURN = 0.01  # share of moments at which a lagging clock may show a wrong sum
PHASES = 2_000  # turns of round robin that are tried as a start that is not fresh
TURNS = 2  # picks by which a server can be off its share, whatever came before: see `in_turn`
POWER = 2  # standard deviations of a draw that the doubt must lie within to tell turns from draws
CLOCK = 0.005  # seconds from the start of a request to its pick
GRAIN = 0.002  # seconds by which the parts of a request may fall short of the whole, by rounding


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement as a person would write it: the word, the method, the numbers, why.

    `decided` is the share of picks that could be decided, None where all were. `command` would
    settle an UNSURE.
    """

    word: str
    method: str
    split_text: str
    why: str
    hits: int = 0
    decided: float | None = None
    command: str = ""

    def __str__(self) -> str:
        return f"{self.word:<6} {self.method:<11}  {self.numbers}"

    @property
    def numbers(self) -> str:
        """The split and why, or why it cannot be told."""
        if self.word == "PASS":
            return f"{self.split_text}  ({self.why})"
        if self.word == "FAIL":
            return f"{self.split_text}   {self.why}"
        return f"{self.why}: {self.command}" if self.command else self.why


@dataclass(frozen=True, slots=True)
class Case:
    """One log against one claim; `earlier` hits are load on the servers, and not judged."""

    upstream: Upstream
    hits: Sequence[Hit]
    sequential: bool
    addresses: Mapping[str, tuple[str, ...]]
    fresh: bool
    clock: float = WIDE
    since: float = -math.inf
    earlier: Sequence[Hit] = ()

    @property
    def label(self) -> str:
        """The lab's word for what is claimed."""
        return "sticky" if self.upstream.sticky else self.upstream.method

    def says(self, word: str, why: str, command: str = "", decided: float | None = None) -> Verdict:
        """A verdict on this case."""
        counts = Counter(replay.seen(self.upstream, hit).server for hit in self.hits)
        text = written(self.upstream, counts)
        return Verdict(word, self.label, text, why, len(self.hits), decided, command)


def judge(
    upstream: Upstream,
    hits: Sequence[Hit],
    *,
    sequential: bool,
    addresses: Mapping[str, tuple[str, ...]] | None = None,
    fresh: bool = True,
    clock: float = WIDE,
    since: float = -math.inf,
) -> Verdict:
    """Say whether the hits, their addresses already mapped to server names, are what nginx must do.

    `sequential` says that no request began before the last one ended; `addresses` what each
    server's name resolves to; `fresh` that nginx was reloaded just before. `since` is a moment
    from which on requests are judged, in a log that holds all there were before and after it.
    The oracle is given requests, times and faults, never who answered.
    """
    case = case_of(
        Case(upstream, (), sequential, addresses or {}, fresh, max(clock, WIDE), since), hits
    )
    hits = case.hits
    if not hits:
        return case.says("UNSURE", "no hits", f"lab run {case.label}")
    if strangers := replay.unknown(upstream, hits):
        name, number = next(iter(strangers.items()))
        return case.says("FAIL", f'hit {number:,} went to "{name}", which is no server of it')
    if own_state(case):
        return by_worker(case)
    first: Verdict | None = None
    for claim in replay.orders(upstream):
        said = judge_one(replace(case, upstream=claim))
        if said.word == "PASS":
            return said
        first = first or said
    return first or case.says("UNSURE", "no order of the servers to judge by")


def case_of(case: Case, hits: Sequence[Hit]) -> Case:
    """The case with its hits: those to judge, and those that were open when it begins."""
    near = CLOCK + case.clock / 1000
    judged = (hit for hit in hits if replay.start(hit) >= case.since)
    earlier = (hit for hit in hits if replay.start(hit) < case.since <= hit.msec + near)
    return replace(case, hits=tuple(judged), earlier=tuple(earlier))


def judge_one(case: Case) -> Verdict:
    """Judge a log against servers in one order, all workers together."""
    upstream = case.upstream
    peers = group_of(upstream, case.addresses)
    if upstream.method in DRAWS and len(peers.live) == 1 and not peers.backup:
        return only(case, peers.live[0].name)
    draws = upstream.method in DRAWS and len(peers.peers) > 1
    if draws and not upstream.sticky and (case.sequential or upstream.method == "random"):
        return drawn(case)
    if case.sequential and not draws:
        return one_by_one(case)
    if upstream.sticky:
        return bound_ones(case)
    if len(peers.peers) < 2 or upstream.method == "round_robin":
        return counted(case)
    if upstream.method in HASHES:
        return keyed(case)
    return by_load(case)


def only(case: Case, name: str) -> Verdict:
    """Judge a draw among one: whatever is drawn, there is nobody else."""
    counts = observed(case)
    if set(counts) - {name, None}:
        return case.says("FAIL", f"expected all of them at {shortened(case.upstream)[name]}")
    if counts[None]:
        return case.says("UNSURE", f"{counts[None]:,} hits found no live upstreams")
    return case.says("PASS", f"exact over {len(case.hits):,} hits")


# --- one worker after another --------------------------------------------------------------


def own_state(case: Case) -> bool:
    """Whether every worker picks for itself and the log knows of several."""
    stateless = case.upstream.method in (*HASHES, "random") and not case.upstream.sticky
    return not case.upstream.zone and not stateless and len({hit.pid for hit in case.hits}) > 1


def by_worker(case: Case) -> Verdict:
    """Judge each worker's hits for themselves: without a zone each has its own turns and loads."""
    zoned = replace(case.upstream, zone=True)
    pids = sorted({hit.pid for hit in case.hits})
    said = [
        judge(
            zoned,
            [hit for hit in (*case.earlier, *case.hits) if hit.pid == pid],
            sequential=case.sequential,
            addresses=case.addresses,
            fresh=case.fresh,
            clock=case.clock,
            since=case.since,
        )
        for pid in pids
    ]
    for word in ("FAIL", "UNSURE"):
        for pid, verdict in zip(pids, said, strict=True):
            if verdict.word == word:
                why = f"worker {pid}, which has no zone to share: {verdict.why}"
                return case.says(word, why, verdict.command, verdict.decided)
    return case.says("PASS", f"{said[0].why}, and so on for each of {len(pids)} workers, no zone")


# --- exact, request by request -------------------------------------------------------------


def one_by_one(case: Case) -> Verdict:
    """Compare every request with its prediction, in order."""
    if case.upstream.sticky and (reason := unseen(case)):
        return case.says("UNSURE", reason)
    if not case.fresh and case.upstream.method not in HASHES:
        return in_phase(case)
    found = first_difference(case)
    if found is None:
        return case.says("PASS", f"exact over {len(case.hits):,} hits")
    number, pick = found
    return case.says("FAIL", difference(case, number, pick))


def difference(case: Case, number: int, pick: Pick) -> str:
    """Which request went elsewhere, and where it should have gone."""
    hit = case.hits[number]
    names = shortened(case.upstream)
    went = route(names, replay.seen(case.upstream, hit).attempts, hit.upstream_addr[-1])
    expected = route(names, pick.attempts, pick.server)
    name = f" (id {hit.request_id})" if hit.request_id else ""
    return f"request {number + 1:,}{name} went to {went}, expected {expected}"


def route(names: Mapping[str, str], attempts: tuple[str, ...], server: str | None) -> str:
    """The servers that a request was tried on, and the end of it."""
    tried = [names.get(name, name) for name in attempts]
    return ", ".join(tried if server in names else [*tried, "no live upstreams"])


def first_difference(case: Case) -> tuple[int, Pick] | None:
    """The first request whose servers were not those predicted, counted from 0, and its Pick.

    nginx's clock may show another second than the log where a request came within milliseconds
    of its turn; then both are followed, and what nginx did must fit one of them.
    """
    worlds = [balancer(case.upstream, case.addresses)]
    timed = case.upstream.method == "least_time"
    for number, hit in enumerate(case.hits):
        arrival = replay.arrival(case.upstream, hit, lasting=timed)
        seen = replay.seen(case.upstream, hit)
        pick = worlds[0].quick(arrival) if len(worlds) == 1 else None
        if pick is None:
            picked = list(futures(worlds, arrival, timed=timed))
            pick = picked[0][1]
            worlds = distinct(
                world for world, it in picked if (it.server, it.attempts) == seen
            ) or [worlds[0]]
            if any((it.server, it.attempts) == seen for _, it in picked):
                continue
        if (pick.server, pick.attempts) != seen:
            return number, pick
    return None


def futures(
    worlds: list[Balancer], arrival: Arrival, *, timed: bool
) -> Iterator[tuple[Balancer, Pick]]:
    """Every world after a request, with its pick, for each second that its clock may show."""
    others = list(readings(arrival))
    for world in worlds:
        if timed or arrival.faults or any(peer.fails for peer in world.peers):
            for other in others:
                twin = copy.deepcopy(world)
                yield twin, served(twin, other)
        yield world, served(world, arrival)


def readings(arrival: Arrival) -> Iterator[Arrival]:
    """The request as nginx's clock may have shown it, where that is another second than the log's.

    A pick comes up to CLOCK after the logged start; an attempt may end GRAIN before it seems to.
    """
    end = arrival.t + sum(took for kind, took in arrival.faults if kind)
    if int(arrival.t + CLOCK) != int(arrival.t) or int(end + CLOCK) != int(end):
        yield replace(arrival, t=arrival.t + CLOCK)
    if int(end - GRAIN) != int(end) > int(arrival.t):
        earlier = tuple((kind, max(0.0, took - GRAIN)) for kind, took in arrival.faults)
        yield replace(arrival, faults=earlier)


def served(world: Balancer, arrival: Arrival) -> Pick:
    """One request from beginning to end."""
    request = world.arrive(arrival)
    world.finish()
    return request.pick or Pick(None, ())


def distinct(worlds: Iterator[Balancer]) -> list[Balancer]:
    """The worlds that differ, at most 16."""
    found: dict[tuple[object, ...], Balancer] = {}
    for world in worlds:
        state = tuple(
            (peer.current, peer.effective, peer.fails, peer.accessed, peer.checked)
            for peer in world.peers
        )
        found.setdefault(state, world)
    return list(islice(found.values(), 16))


def unseen(case: Case) -> str:
    """Why the log cannot tell what sticky binds; empty where it can."""
    sticky = case.upstream.sticky
    if sticky is None:
        return ""
    if sticky.kind == "learn":
        return "the log does not hold what sticky learns from answers"
    readable = ("$cookie_", "$arg_")
    if other := [name for name in sticky.lookups if not name.startswith(readable)]:
        return f"the log does not hold {other[0]}, by which sticky binds"
    return ""


# --- exact in number -----------------------------------------------------------------------


def written(upstream: Upstream, counts: Mapping[str | None, int]) -> str:
    """A split as a person would write it, in the order of the config."""
    names = shortened(upstream)
    parts = [f"{short}: {counts.get(name, 0)}" for name, short in names.items()]
    if counts.get(None):
        parts.append(f"no live upstreams: {counts[None]}")
    return ", ".join(parts)


def shortened(upstream: Upstream) -> dict[str, str]:
    """Each server's name without the port that all share."""
    names = [server.name for server in upstream.servers]
    hosts = {name: name.rpartition(":")[0] or name for name in names}
    ports = {name.rpartition(":")[2] for name in names}
    same = len(ports) == 1 < len(names) and len(set(hosts.values())) == len(set(names))
    return hosts if same else {name: name for name in names}


def disturbed(case: Case) -> bool:
    """Whether a server failed, or could be full, so that order decides what nginx does."""
    return any(server.max_conns for server in case.upstream.servers) or any(
        len(hit.upstream_addr) > 1 or replay.fault(case.upstream, hit, 0) or hit.status == 502
        for hit in case.hits
    )


def turns(case: Case, number: int) -> Iterator[str | None]:
    """The first servers of an undisturbed upstream, in order."""
    arrivals = (Arrival() for _ in range(number))
    return (pick.server for pick in predict(case.upstream, arrivals, case.addresses))


def observed(case: Case) -> Counter[str | None]:
    """How often each server answered."""
    return Counter(replay.seen(case.upstream, hit).server for hit in case.hits)


def counted(case: Case) -> Verdict:
    """Compare how often each server came up: turns are exact even when requests overlap."""
    if disturbed(case):
        return in_log_order(case)
    if not case.fresh:
        return in_phase(case)
    expected = list(turns(case, len(case.hits)))
    if Counter(expected) != observed(case):
        return case.says("FAIL", f"expected {written(case.upstream, Counter(expected))}")
    if len(set(expected)) > 1 and (share := out_of_turn(case, expected)) > OUT_OF_TURN:
        return case.says(
            "FAIL",
            f"the sum is right, but {share:.0%} of picks came out of turn: "
            "workers that do not share a zone take turns of their own",
        )
    return case.says("PASS", f"exact over {len(case.hits):,} hits")


def out_of_turn(case: Case, expected: Sequence[str | None]) -> float:
    """The share of moments at which a server had come up too often or too rarely for its turn."""
    names = list(dict.fromkeys(server.name for server in case.upstream.servers))
    if len(names) < len(case.upstream.servers):
        return 0.0
    seen = windows(case.upstream, case.hits).widened(case.clock)
    before = np.searchsorted(np.sort(seen.pick_to), seen.pick_from, "left")
    until = np.searchsorted(np.sort(seen.pick_from), seen.pick_from, "right")
    off = np.zeros(len(case.hits), dtype=bool)
    for number, name in enumerate(names):
        due = np.concatenate([[0], np.cumsum([server == name for server in expected])])
        own = seen.server == number
        surely = np.searchsorted(np.sort(seen.pick_to[own]), seen.pick_from, "left")
        maybe = np.searchsorted(np.sort(seen.pick_from[own]), seen.pick_from, "right")
        off |= (surely > due[until]) | (maybe < due[before])
    return float(off.mean())


def in_log_order(case: Case) -> Verdict:
    """Replay an upstream with failures under concurrency: right if it fits, else undecided."""
    hits = sorted(case.hits, key=replay.start)
    arrivals = [replay.arrival(case.upstream, hit, lasting=True) for hit in hits]
    expected = Counter(pick.server for pick in predict(case.upstream, arrivals, case.addresses))
    if expected == observed(case):
        return case.says("PASS", f"exact over {len(hits):,} hits, failures replayed as logged")
    return case.says(
        "UNSURE",
        "servers failed or were full while requests overlapped, so their order within "
        "a millisecond decides; one at a time would settle it",
        f"lab run {case.label} -c 1",
    )


def in_phase(case: Case) -> Verdict:
    """Compare with the turns from any point of their cycle, for a start that was not fresh."""
    total = sum(server.weight for server in case.upstream.servers)
    cycle = list(turns(case, min(total, PHASES))) if not disturbed(case) else []
    said = in_turn(case) if cycle and not case.sequential else None
    whole = case.since > -math.inf  # else hits may be missing that would mend what looks wrong
    if said and (said.word == "PASS" or whole):
        return said
    seen = [replay.seen(case.upstream, hit).server for hit in case.hits]
    for phase in range(0 if said else len(cycle)):
        fits = (cycle[(phase + number) % len(cycle)] for number in range(len(seen)))
        right = Counter(fits) == Counter(seen) if not case.sequential else same(fits, seen)
        if right and len(cycle) == total:
            return case.says("PASS", f"exact over {len(seen):,} hits from turn {phase + 1}")
    return case.says(
        "UNSURE",
        "nginx had served before, and its turns fit no point of an undisturbed cycle; "
        "a reload before the run would settle it",
        f"lab run {case.label}",
    )


def in_turn(case: Case) -> Verdict | None:
    """Compare each server's picks with its share at every moment, from wherever the turns stood.

    Of N picks a server of weight w gets (N w + c(0) - c(N)) / W, where c is its current weight
    and W the sum of weights: every pick adds w to each c and takes W from the chosen one's. As c
    stays between -W and W, also after failures, that is its share but for TURNS; with several
    addresses, for TURNS each. None where the hits are too few to tell turns from draws.
    """
    shares = shares_of(case)
    hits = [hit for hit in (*case.earlier, *case.hits) if hit.upstream_addr[-1] in shares]
    seen = windows(case.upstream, hits).widened(case.clock)
    kept = seen.pick_to >= case.since * 1000
    first, last, server = seen.pick_from[kept], seen.pick_to[kept], seen.server[kept]
    before = np.searchsorted(np.sort(last), first, "left")
    until = np.searchsorted(np.sort(first), first, "right")
    doubt = TURNS + float(np.median(until - before))
    spreads = [share * (1 - share) for share in shares.values() if 0 < share < 1]
    needed = (POWER * doubt) ** 2 / min(spreads, default=1)
    off = np.zeros(len(first), dtype=bool)
    numbers = {server.name: number for number, server in enumerate(case.upstream.servers)}
    for name, share in shares.items():
        own = server == numbers[name]
        surely = np.searchsorted(np.sort(last[own]), first, "left")
        maybe = np.searchsorted(np.sort(first[own]), first, "right")
        allowed = TURNS * len(case.addresses.get(name, (name,)))
        off |= (surely > until * share + allowed) | (maybe < before * share - allowed)
    if (wrong := float(off.mean())) > OUT_OF_TURN:
        why = f"at {wrong:.0%} of picks a server was more than {TURNS} turns off its share"
        return case.says("FAIL", why)
    if len(first) < needed:
        return None
    return case.says("PASS", f"in turn at each of {len(first):,} hits, from wherever turns stood")


def shares_of(case: Case) -> dict[str, float]:
    """The share of picks that turns give to each server of the config while none fails."""
    live = [peer.server for peer in group_of(case.upstream, case.addresses).live]
    total = sum(server.weight for server in live)
    shares = dict.fromkeys((server.name for server in case.upstream.servers), 0.0)
    for server in live:
        shares[server.name] += server.weight / total
    return shares


def same(expected: Iterator[str | None], seen: Sequence[str | None]) -> bool:
    """Whether two sequences are equal, as lazily as can be."""
    return all(one == other for one, other in zip(expected, seen, strict=True))


# --- exact by key --------------------------------------------------------------------------


def keyed(case: Case) -> Verdict:
    """Compare each request with its key's server; requests that overlap change nothing of that."""
    upstream = case.upstream
    arrivals = [replay.arrival(upstream, hit, lasting=False) for hit in case.hits]
    turned = upstream.method != "ip_hash" and not all(arrival.key for arrival in arrivals)
    if turned and not any(arrival.key for arrival in arrivals):
        return counted(case)
    plain = (replace(arrival, faults=()) for arrival in arrivals)
    picks = predict(upstream, plain, case.addresses)
    outages, excused = failures(case), 0
    for number, (arrival, pick) in enumerate(zip(arrivals, picks, strict=True)):
        seen = replay.seen(upstream, case.hits[number])
        if (upstream.method != "ip_hash" and not arrival.key) or seen == (
            pick.server,
            pick.attempts,
        ):
            continue
        if not excusable(case, number, arrival, outages):
            return case.says("FAIL", difference(case, number, pick))
        excused += 1
    rest = f", {excused:,} of them around servers that failed or were full" if excused else ""
    return case.says("PASS", f"exact over {len(case.hits):,} hits{rest}")


def excusable(
    case: Case, number: int, arrival: Arrival, outages: Sequence[tuple[str, float, float]]
) -> bool:
    """Whether the servers that a key comes to before those seen may all have been out."""
    seen = replay.seen(case.upstream, case.hits[number])
    every = {server.name for server in case.upstream.servers}
    suspects = {server.name for server in case.upstream.servers if server.max_conns}
    suspects |= failing_around(outages, case.hits[number])
    if not suspects:
        return False
    chain = preference(case, arrival)
    for name in seen.attempts:
        if name not in chain or not set(chain[: chain.index(name)]) <= suspects:
            return False
        suspects.add(name)
    return seen.server is not None or every <= suspects


def preference(case: Case, arrival: Arrival) -> tuple[str, ...]:
    """The servers in the order in which a key comes to them."""
    failing = {server.name: "refused" for server in case.upstream.servers}
    rules = replace(case.upstream.next_upstream, conditions=frozenset({"error"}), tries=0)
    claim = replace(case.upstream, next_upstream=replace(rules, timeout=0.0))
    (pick,) = predict(claim, [replace(arrival, fail=failing, faults=())], case.addresses)
    return pick.attempts


def failures(case: Case) -> list[tuple[str, float, float]]:
    """Which server failed, and from when until when it may be banned for that, in seconds."""
    bans = {server.name: server.fail_timeout + 2 for server in case.upstream.servers}
    return [
        (name, replay.start(hit) - 1, hit.msec + bans[name])
        for hit in case.hits
        for index, name in enumerate(replay.seen(case.upstream, hit).attempts)
        if replay.fault(case.upstream, hit, index)
    ]


def failing_around(outages: Sequence[tuple[str, float, float]], hit: Hit) -> set[str]:
    """The servers that may have been banned while a request was served."""
    begun = replay.start(hit)
    return {name for name, first, last in outages if first <= hit.msec and begun <= last}


def bound_ones(case: Case) -> Verdict:
    """Compare the requests that sticky binds; the others are not told in which order they came."""
    if reason := unseen(case):
        return case.says("UNSURE", reason)
    peers = group_of(case.upstream, case.addresses).by_sid
    bound, outages = 0, failures(case)
    for number, hit in enumerate(case.hits):
        peer = peers.get(replay.sticky_of(case.upstream, hit))
        if peer is None or (peer.out and not peer.server.drain):
            continue
        bound += 1
        seen = replay.seen(case.upstream, hit)
        held = peer.max_conns or peer.name in failing_around(outages, hit)
        if seen.attempts[:1] != (peer.name,) and not held:
            return case.says("FAIL", difference(case, number, peer.alone))
    if not bound:
        return case.says("UNSURE", "no request was bound to a server", f"lab run {case.label} -c 1")
    return case.says("PASS", f"all {bound:,} bound requests of {len(case.hits):,} hits exact")


# --- by chance -----------------------------------------------------------------------------


def chances(case: Case) -> dict[str, float]:
    """The probability of each server on an idle upstream."""
    group = group_of(case.upstream, case.addresses)
    if case.upstream.method == "random":
        by_peer = odds_of(group, group.live)
    else:
        by_peer = dict.fromkeys(group.live, 0.0)
        for (_, second), chance in pair_odds(group, group.live).items():
            by_peer[second] += chance
    summed: dict[str, float] = {}
    for peer, chance in by_peer.items():
        summed[peer.name] = summed.get(peer.name, 0.0) + chance
    return {name: chance / sum(summed.values()) for name, chance in summed.items()}


def hits_to_tell(upstream: Upstream, usual: int) -> int:
    """How many hits it takes to judge a log: draws need more than the usual."""
    if upstream.method not in DRAWS or len(upstream.servers) < 2:
        return usual
    return max(usual, odds.draws_to_tell(chances(Case(upstream, (), False, {}, False))))


def drawn(case: Case) -> Verdict:
    """Compare counts, and counts of pairs in a row, with independent draws."""
    if disturbed(case):
        return case.says(
            "UNSURE",
            "servers failed or were full, and what is drawn again leaves no trace; "
            "a run without failures would settle it",
            f"lab run {case.label}",
        )
    hits = sorted(case.hits, key=replay.start)
    names = [str(replay.seen(case.upstream, hit).server) for hit in hits]
    expected = chances(case)
    if stray := set(names) - set(expected):
        return case.says("FAIL", f'"{min(stray)}" takes no draws: it is down or a backup')
    total, needed = len(names), odds.draws_to_tell(expected)
    if len(expected) > 1 and odds.improbable(Counter(names), expected):
        return case.says("FAIL", f"expected {banded(case, expected, total)}")
    pairs = {f"{a} {b}": expected[a] * expected[b] for a in expected for b in expected}
    in_a_row = Counter(f"{a} {b}" for a, b in list(pairwise(names))[::2])
    if len(expected) > 1 and (pair := odds.improbable(in_a_row, pairs)):
        seen, due = in_a_row[pair], pairs[pair] * sum(in_a_row.values())
        return case.says(
            "FAIL", f"not drawn: {pair.replace(' ', ' then ')} {seen} times, expected {due:.0f}"
        )
    if total < needed:
        return case.says(
            "UNSURE",
            f"{total:,} hits; {needed:,} would settle it",
            f"lab run {case.label} -n {needed}",
        )
    return case.says("PASS", f"within {banded(case, expected, total)} over {total:,} hits")


def banded(case: Case, expected: Mapping[str, float], total: int) -> str:
    """What chance allows each server: "b: 333 ± 90", or "333 ± 90 each" where all are alike."""
    names = shortened(case.upstream)
    bands = {name: odds.band(chance, total, len(expected)) for name, chance in expected.items()}
    texts = {
        name: f"{chance * total:.0f} ± {max(bands[name][1] - chance * total, 0):.0f}"
        for name, chance in expected.items()
    }
    if len(set(texts.values())) == 1 and len(texts) > 1:
        return f"{next(iter(texts.values()))} each"
    return ", ".join(f"{names[name]}: {text}" for name, text in texts.items())


# --- by load -------------------------------------------------------------------------------


def by_load(case: Case) -> Verdict:
    """Compare each pick with the load that the log shows around it."""
    hits = (*case.earlier, *case.hits)
    answered = [hit for hit in hits if replay.seen(case.upstream, hit).server is not None]
    if reason := unclear(case):
        return case.says("UNSURE", reason, f"lab run {case.label} -c 1")
    if case.upstream.method == "random_two":
        wide = load.random_two(case.upstream, answered, case.clock, case.since)
        exact = load.random_two(case.upstream, answered, EXACT, case.since)
        tallies = load.draws_tally(wide), load.draws_tally(exact)
        return weighed(case, answered, *tallies, unlikely(case, wide, exact), undrawn(case))
    count = BY_LOAD[case.upstream.method]
    wide_tally = count(case.upstream, answered, case.clock, case.since)
    exact_tally = count(case.upstream, answered, EXACT, case.since)
    return weighed(case, answered, wide_tally, exact_tally)


def undrawn(case: Case) -> float:
    """The most likely chance that 20 draws bring no second server, and turns decide.

    Draws of the first server again, or of one that is down, are all that then came.
    """
    group = group_of(case.upstream, case.addresses)
    chances = odds_of(group, group.live)
    live = sum(peer.server.weight for peer in group.live)
    return sum(
        chance * (1 - (live - peer.server.weight) / group.total_weight) ** 19
        for peer, chance in chances.items()
    )


def unclear(case: Case) -> str:
    """Why loads cannot be told apart; empty where they can."""
    names = [server.name for server in case.upstream.servers]
    if len(set(names)) < len(names) or any(len(it) > 1 for it in case.addresses.values()):
        return "servers of one name are one in the log, so their loads cannot be told apart"
    if "inflight" in case.upstream.measure:
        return "the age of running requests that nginx saw is not in the log"
    if not case.fresh and case.upstream.method == "least_time":
        return "nginx had served before, and the times that it remembers are not in the log"
    return ""


def weighed(
    case: Case,
    hits: Sequence[Hit],
    wide: Tally,
    exact: Tally,
    unlikely: str = "",
    by_turns: float = 0.0,
) -> Verdict:
    """The verdict on picks by load: wrong only beyond the clock's doubt, right only if decided.

    `by_turns` is the chance that a pick is made without regard to the load.
    """
    share = exact.decided / max(exact.picks, 1)
    excused = odds.band(by_turns, wide.picks, 1)[1] if by_turns > 0 else 0
    if wide.wrong > max(2, WRONG * wide.decided) + excused:
        number = wide.first or 0
        name = hits[number].request_id
        where = f"request {number + 1 - (len(hits) - wide.picks):,}" + (
            f" (id {name})" if name else ""
        )
        why = f"{wide.wrong:,} of {wide.decided:,} picks were wrong for the load, first {where}"
        return case.says(
            "FAIL", f"{why}, even if the clock is {case.clock:g} ms off", decided=share
        )
    if unlikely:
        return case.says("FAIL", unlikely, decided=share)
    if exact.wrong > max(2, BLURRED * exact.decided) + excused:
        why = (
            f"{exact.wrong:,} of {exact.decided:,} picks look wrong by less than {case.clock:g} ms"
        )
        return case.says("UNSURE", f"{why}; fewer at once would settle it", slower(case), share)
    needed = DECIDED_DRAWS if case.upstream.method == "random_two" else DECIDED
    if share < needed:
        why = f"{share:.0%} of {exact.picks:,} picks could be decided, {needed:.0%} are needed"
        return case.says("UNSURE", f"{why}; fewer at once would settle it", slower(case), share)
    why = f"{exact.right:,} of {exact.picks:,} picks decided, all but {exact.wrong:,} right"
    why = why if exact.wrong else why.replace(", all but 0 right", ", all right")
    return case.says("PASS", why, decided=share)


def slower(case: Case) -> str:
    """The run that tells more: half as many requests at once."""
    begun = sorted(replay.start(hit) for hit in case.hits)
    span = max(case.hits[-1].msec - begun[0], 0.001)
    at_once = sum(hit.request_time for hit in case.hits) / span
    return f"lab run {case.label} -c {max(2, round(at_once / 2))}"


def unlikely(case: Case, wide: Draws, exact: Draws) -> str:
    """What two draws per pick cannot explain; empty where they can."""
    return miscounted(case, wide) or too_keen(exact)


def miscounted(case: Case, drawn: Draws) -> str:
    """A server whose count is out of the bounds that two draws give under this load."""
    calm = drawn.on.undisturbed
    low, high = drawn.low[calm], drawn.high[calm]
    middle = (low + high) / 2
    for number, server in enumerate(case.upstream.servers):
        count = int((drawn.on.seen.server[calm] == number).sum())
        least, most = low[:, number].sum(), high[:, number].sum()
        variance = float((middle[:, number] * (1 - middle[:, number])).sum())
        if odds.far(count, least, most, variance, len(case.upstream.servers) + 1):
            name = shortened(case.upstream)[server.name]
            return f"{name}: {count}, two draws under this load give {least:.0f} to {most:.0f}"
    return ""


def too_keen(drawn: Draws) -> str:
    """Whether the least loaded won more often than it can have been drawn.

    A clock that is out of step makes it seem to win less often, never more.
    """
    calm = drawn.on.undisturbed
    wins_all = drawn.low[calm] >= drawn.best - 1e-12
    sure = np.flatnonzero(wins_all.any(axis=1))
    best = wins_all[sure].argmax(axis=1)
    chance = drawn.best[best]
    wins = int((drawn.on.seen.server[calm][sure] == best).sum())
    expected, variance = float(chance.sum()), float((chance * (1 - chance)).sum())
    if odds.far(wins, 0, expected, variance, len(drawn.best) + 1):
        return f"the least loaded won {wins} of {len(sure)} known picks, expected {expected:.0f}"
    return ""
