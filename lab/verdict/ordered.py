"""Replay nginx's own order of picks and releases, and weigh each pick by what a claim allows.

The trace puts events in order except where two workers' lines interleave. Such neighbours are
replayed in every order that the trace leaves open; orders in which the claim could not have made
the picks that were seen are dropped, as long as one order remains.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ..evidence.access_log import Hit
from ..evidence.trace import PICK, TIMED, Step
from ..nginxconf.model import Upstream
from ..oracle import ORACLES, ranking
from ..oracle import retry as retries
from ..oracle.base import Peer, Request, bound, chosen, eligible_of, group_of, released
from ..oracle.least_time import LeastTime
from ..oracle.random import Random
from . import replay

MOST_ORDERS = 120  # of one cluster of overlapping events that are tried out
MOST_STATES = 32  # of nginx that are followed at once


Odds = Mapping[str | None, float]  # servers and their probabilities; None: no live upstreams


@dataclass(frozen=True, slots=True)
class Weighed:
    """One pick, and the lowest and the highest probability of its server under the claim.

    `least` and `most` are the lowest and the highest probability of each server that the claim
    gives this pick, over all orders of events; `low` and `high` those of the server that it had.
    """

    step: Step
    low: float
    high: float
    least: Odds
    most: Odds

    @property
    def decided(self) -> bool:
        """Whether the trace determines the probability."""
        return self.high - self.low < 1e-9


def undecidable(upstream: Upstream, addresses: Mapping[str, tuple[str, ...]]) -> str:
    """Why an order of events cannot decide this upstream's picks; empty where it can."""
    names = [peer.name for peer in group_of(upstream, addresses).everyone]
    if len(set(names)) < len(names):
        return "several servers share a name, and the log does not tell them apart"
    if "inflight" in upstream.measure:
        return "least_time inflight compares milliseconds, which the trace does not have"
    sticky = upstream.sticky
    if sticky and (sticky.kind == "learn" or not _readable(sticky.lookups)):
        return "the log does not hold what sticky binds by"
    return ""


def _readable(lookups: Iterable[str]) -> bool:
    return all(name.startswith(("$cookie_", "$arg_")) for name in lookups)


def weigh(
    upstream: Upstream,
    hits: Sequence[Hit],
    order: Sequence[Step],
    addresses: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Weighed]:
    """Weigh every pick of the order under the claim, from a freshly loaded nginx on.

    The hits hold every request of the order, with the servers' names for addresses. Without a
    zone each worker is replayed for itself. Where no order of overlapping events fits the claim,
    the picks that contradict it weigh 0 and the replay goes on from what nginx did.
    """
    by_id = {hit.request_id: hit for hit in hits}
    weighed: list[Weighed] = []
    for steps in _by_state(upstream, order):
        replayed = Replay(Model(upstream, addresses or {}), by_id)
        for cluster in clusters(steps):
            weighed += replayed.weigh(cluster)
    return weighed if upstream.zone else sorted(weighed, key=lambda pick: pick.step.since)


def _by_state(upstream: Upstream, order: Sequence[Step]) -> Iterable[Sequence[Step]]:
    """The steps of each state that nginx keeps: one in a zone, else one a worker."""
    if upstream.zone:
        return [order]
    workers = dict.fromkeys(step.worker for step in order)
    return [[step for step in order if step.worker == worker] for worker in workers]


def clusters(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Cut an order into runs of steps that overlap one another; most runs are one step."""
    cluster: list[Step] = []
    until = 0
    for step in steps:
        if cluster and step.since >= until:
            yield cluster
            cluster = []
        cluster.append(step)
        until = max(until, step.until)
    if cluster:
        yield cluster


def orders(cluster: Sequence[Step]) -> Iterator[list[Step]]:
    """Every order in which the steps of a cluster may have happened.

    A step that ended before another began stays before it; so do the steps of one worker.
    """
    if not cluster:
        yield []
        return
    first_end = min(step.until for step in cluster)
    for number, step in enumerate(cluster):
        if step.since < first_end:
            for rest in orders([*cluster[:number], *cluster[number + 1 :]]):
                yield [step, *rest]


@dataclass(frozen=True, slots=True)
class State:
    """What a model may be set back to: its peers and its open requests."""

    peers: tuple[tuple[int, ...], ...]
    times: tuple[tuple[int, int], ...]
    requests: Mapping[str, Request]
    held: Mapping[str, Peer]

    @property
    def key(self) -> tuple[object, ...]:
        """What decides the picks to come: states with equal keys need be followed once."""
        chains = tuple(
            (name, request.chain, request.round, request.misses)
            for name, request in sorted(self.requests.items())
        )
        return self.peers, self.times, chains


class Model:
    """nginx as a claim has it: its peers, and the requests that hold them."""

    def __init__(self, upstream: Upstream, addresses: Mapping[str, tuple[str, ...]]) -> None:
        self.upstream = upstream
        self.group = group_of(upstream, addresses)
        self.method = ORACLES[upstream.method](self.group, upstream.measure, None)
        ranking.drop(self.group)  # `load` sets the peers back behind its back
        self.timed = self.method if isinstance(self.method, LeastTime) else None
        self.budget = retries.budget(self.group, upstream.next_upstream)
        self.peers = {peer.name: peer for peer in self.group.everyone}
        self.requests: dict[str, Request] = {}
        self.held: dict[str, Peer] = {}

    def take(self, step: Step, hit: Hit) -> Odds:
        """Let a step happen as it was seen; for a pick, return where the claim lets it go."""
        if step.kind == PICK:
            return self._pick(step, hit)
        if peer := self.held.get(step.request_id):
            request = self.requests[step.request_id]
            request.now = step.second * 1000
            if step.kind == TIMED:
                self._measure(request, peer, step, hit)
            else:
                self._release(request, peer, step, hit)
        return {}

    def _pick(self, step: Step, hit: Hit) -> Odds:
        request = self.requests.get(step.request_id) or self._arrive(step, hit)
        request.now = step.second * 1000
        odds = self._odds(request)
        if peer := self.peers.get(step.server):
            if request.group.backup and peer in request.group.backup.peers:
                request.group = request.group.backup
            chosen(peer, request)
            self.held[step.request_id] = peer
        return odds

    def _arrive(self, step: Step, hit: Hit) -> Request:
        arrival = replay.arrival(self.upstream, hit, lasting=False)
        now = step.second * 1000
        request = Request(arrival, self.group, self.budget, now, now, hint=arrival.sticky)
        self.requests[step.request_id] = request
        return request

    def _odds(self, request: Request) -> Odds:
        """Where the claim lets a request go; takes the turn that the claim takes."""
        if isinstance(self.method, Random) and self._is_drawn(request):
            odds = self.method.odds(request)
            return {peer.name: chance for peer, chance in odds.items() if chance}
        peer = self.method.get(request)
        return {peer.name if peer else None: 1.0}

    def _is_drawn(self, request: Request) -> bool:
        """Whether a draw decides, and neither sticky nor turns."""
        peers = request.group.peers
        return len(peers) > 1 and not bound(request) and bool(eligible_of(peers, request))

    def _measure(self, request: Request, peer: Peer, step: Step, hit: Hit) -> None:
        """Add an answer's times to its server's averages; an attempt that failed has none."""
        header = replay.at(hit.upstream_header_time, step.attempt)
        response = replay.at(hit.upstream_response_time, step.attempt)
        last = step.attempt == len(hit.upstream_addr) - 1
        if self.timed and last and header is not None and response is not None:
            self.timed.ended(request, peer, round(header * 1000), round(response * 1000))

    def _release(self, request: Request, peer: Peer, step: Step, hit: Hit) -> None:
        del self.held[step.request_id]
        released(peer, request, failed=step.failed)
        if step.attempt == len(hit.upstream_addr) - 1:
            del self.requests[step.request_id]

    def save(self) -> State:
        """The state of the model now."""
        everyone = self.group.everyone
        peers = tuple(
            (peer.score, peer.effective, peer.conns, peer.fails, peer.accessed, peer.checked)
            for peer in everyone
        )
        timed = self.timed.times.values() if self.timed else ()
        times = tuple((times.header, times.response) for times in timed)
        return State(peers, times, _copies(self.requests), dict(self.held))

    def load(self, state: State) -> None:
        """Set the model back to a state."""
        for peer, values in zip(self.group.everyone, state.peers, strict=True):
            peer.score, peer.effective, peer.conns, peer.fails, peer.accessed, peer.checked = values
        timed = self.timed.times.values() if self.timed else ()
        for times, (header, response) in zip(timed, state.times, strict=True):
            times.header, times.response = header, response
        self.requests, self.held = _copies(state.requests), dict(state.held)


def _copies(requests: Mapping[str, Request]) -> dict[str, Request]:
    return {
        name: replace(request, tried=set(request.tried), attempts=list(request.attempts))
        for name, request in requests.items()
    }


@dataclass(frozen=True, slots=True)
class Path:
    """One order of a cluster's steps: the state after it, and the odds of each pick in it."""

    state: State
    odds: Mapping[Step, Odds]
    upstream: Upstream

    def chance(self, step: Step) -> float:
        """The probability of the server that a pick went to."""
        return self.odds[step].get(seen(self.upstream, step), 0.0)


class Replay:
    """A model that follows the order of events, in every state that nginx may be in."""

    def __init__(self, model: Model, hits: Mapping[str, Hit]) -> None:
        self.model = model
        self.hits = hits
        self.states: list[State] = []  # where there are several; else the model holds the only one

    def weigh(self, cluster: Sequence[Step]) -> list[Weighed]:
        """Weigh the picks of the next cluster, in all its orders and from all states."""
        picks = [step for step in cluster if step.kind == PICK]
        if len(cluster) == 1 and not self.states:
            odds = self._take(cluster)
            return [_weighed(self.model.upstream, step, [odds[step]]) for step in picks]
        paths = list(self._paths(cluster))
        kept = [path for path in paths if all(map(path.chance, picks))] or paths[:1]
        self._go_on([path.state for path in kept])
        return [
            _weighed(self.model.upstream, step, [path.odds[step] for path in kept])
            for step in picks
        ]

    def _take(self, steps: Sequence[Step]) -> dict[Step, Odds]:
        """Let steps happen one after the other; the odds of the picks among them."""
        odds = {step: self.model.take(step, self.hits[step.request_id]) for step in steps}
        return {step: where for step, where in odds.items() if step.kind == PICK}

    def _paths(self, cluster: Sequence[Step]) -> Iterator[Path]:
        """Every order of the cluster from every state, as far as MOST_ORDERS goes."""
        states = self.states or [self.model.save()]
        for steps in islice(orders(cluster), MOST_ORDERS):
            for state in states:
                self.model.load(state)
                odds = self._take(steps)
                yield Path(self.model.save(), odds, self.model.upstream)

    def _go_on(self, states: Sequence[State]) -> None:
        """Follow the states that differ."""
        distinct = list({state.key: state for state in states}.values())[:MOST_STATES]
        self.model.load(distinct[0])
        self.states = distinct if len(distinct) > 1 else []


def _weighed(upstream: Upstream, step: Step, odds: Sequence[Odds]) -> Weighed:
    """A pick by its odds in each of the orders."""
    servers = {name for each in odds for name in each}
    least = {name: min(each.get(name, 0.0) for each in odds) for name in servers}
    most = {name: max(each.get(name, 0.0) for each in odds) for name in servers}
    server = seen(upstream, step)
    return Weighed(step, least.get(server, 0.0), most.get(server, 0.0), least, most)


def seen(upstream: Upstream, step: Step) -> str | None:
    """The server of a pick as a claim names it: None where nginx found no live upstream."""
    names = (server.name for server in upstream.servers)
    return None if step.server == upstream.name and step.server not in names else step.server
