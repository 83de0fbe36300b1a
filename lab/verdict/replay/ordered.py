"""Replay nginx's own order of picks and releases; give each pick its probability by the claim.

The trace puts events in order except where two workers' lines interleave. Such neighbours are
replayed in every order that the trace leaves open; orders in which the claim could not have made
the picks that were seen are dropped, as long as one order remains. Where there are too many
orders to replay, the picks concerned weigh 0 to 1, and the replay goes on from what is known for
certain: the servers that were picked, and so their requests in flight. Each later turn narrows the
bounds of the scores (`leads.py`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from ...evidence.access_log import Hit
from ...evidence.trace import PICK, RELEASE, TIMED, Step
from ...nginxconf.model import Upstream
from ...oracle import ORACLES, ranking
from ...oracle import retry as retries
from ...oracle.base import Peer, Request, bound, eligible_of, group_of, record_pick, record_release
from ...oracle.least_time import LeastTime
from ...oracle.random import Random
from .. import replay
from .leads import Leads, Turn

MOST_TRIED = 500  # events replayed in one cluster of overlapping events, in all its orders
MOST_STATES = 32  # states of nginx that are followed at once
FAR = 10**12  # more than any score

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
    """Why an order of events cannot decide this upstream's picks; empty if it can."""
    names = [peer.name for peer in group_of(upstream, addresses).everyone]
    if len(set(names)) < len(names):
        return "several servers share a name, and the log does not distinguish them"
    if "inflight" in upstream.measure:
        return "least_time inflight compares milliseconds, which the trace does not have"
    sticky = upstream.sticky
    if sticky and (sticky.kind == "learn" or not _readable(sticky.lookups)):
        return "the log does not contain what sticky binds by"
    return ""


def _readable(lookups: Iterable[str]) -> bool:
    return all(name.startswith(("$cookie_", "$arg_")) for name in lookups)


def weigh(
    upstream: Upstream,
    hits: Mapping[str, Hit],
    order: Sequence[Step],
    addresses: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Weighed]:
    """Compute the probability of every pick of the order under the claim, from a fresh nginx.

    The hits hold every request of the order by its id, with the servers' names for addresses.
    Without a zone each worker is replayed separately. If no order of overlapping events fits the
    claim, the contradicting picks get 0 and the replay continues from what nginx did.
    """
    weighed: list[Weighed] = []
    # only least_time logs when it takes its times: just before the release
    measured_at = TIMED if any(step.kind == TIMED for step in order) else RELEASE
    for steps in _by_state(upstream, order):
        replayed = Replay(Model(upstream, addresses or {}, measured_at), hits)
        for cluster in clusters(steps):
            weighed += replayed.weigh(cluster)
    return weighed if upstream.zone else sorted(weighed, key=lambda pick: pick.step.since)


def _by_state(upstream: Upstream, order: Sequence[Step]) -> Iterable[Sequence[Step]]:
    """The steps of each state that nginx keeps: one with a zone, else one per worker."""
    if upstream.zone:
        return [order]
    workers = dict.fromkeys(step.worker for step in order)
    return [[step for step in order if step.worker == worker] for worker in workers]


def clusters(steps: Iterable[Step]) -> Iterator[list[Step]]:
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


def firsts(steps: Sequence[Step]) -> list[Step]:
    """The steps that may have happened first, by the lines of the trace.

    A step that ended before another began stays before it; so do the steps of one worker.
    """
    first_end = min(step.until for step in steps)
    return [step for step in steps if step.since < first_end]


class Known(Enum):
    """How much of nginx's state the replay knows.

    Without `TURNS` the scores of smooth weighted round robin are unknown but for the bounds that
    later turns give them, while open requests and failures are known; with `NOTHING` no pick can
    be predicted.
    """

    TURNS = "turns"
    LOADS = "loads"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A saved state of a model: its peers and its open requests.

    `leads` bounds the scores if they are unknown.
    """

    peers: tuple[tuple[int, ...], ...]
    times: tuple[tuple[int, int], ...]
    requests: Mapping[str, Request]
    held: Mapping[str, Peer]
    leads: Leads

    @property
    def key(self) -> tuple[object, ...]:
        """The part of the state that decides later picks; states with equal keys are merged."""
        chains = sorted(
            (name, request.chain, request.round, request.misses)
            for name, request in self.requests.items()
            if request.chain is not None or request.round or request.misses
        )
        return self.peers, self.times, tuple(chains)

    def either(self, other: "State") -> "State":
        """The state that covers both this state and another one with the same key."""
        return (
            self
            if self.leads is other.leads
            else replace(self, leads=self.leads.either(other.leads))
        )


class Model:
    """nginx with the claim's config: its peers, and the requests in flight on them."""

    def __init__(
        self, upstream: Upstream, addresses: Mapping[str, tuple[str, ...]], measured_at: str
    ) -> None:
        self.upstream = upstream
        self.measured_at = measured_at
        self.group = group_of(upstream, addresses)
        self.method = ORACLES[upstream.method](self.group, upstream.measure, None)
        ranking.drop(self.group)  # `load` changes the peers without updating the ranking
        self.timed = self.method if isinstance(self.method, LeastTime) else None
        self.budget = retries.budget(self.group, upstream.next_upstream)
        self.peers = {peer.name: peer for peer in self.group.everyone}
        self.requests: dict[str, Request] = {}
        self.held: dict[str, Peer] = {}
        self.known = Known.TURNS
        self.leads = Leads.unknown(self.group.everyone)
        self.regaining = False  # a server that failed may have a lower weight for a while

    def take(self, step: Step, hit: Hit, *, shared: bool = False) -> list[Odds]:
        """Apply an observed step; for a pick, return the probabilities of the claim.

        A pick has several sets of probabilities if part of nginx's state is unknown. `shared` says
        that saved states contain the same requests, which therefore must not change.
        """
        if shared and (request := self.requests.get(step.request_id)):
            self.requests[step.request_id] = _copy(request)
        if step.kind == PICK:
            return self._pick(step, hit)
        if peer := self.held.get(step.request_id):
            request = self.requests[step.request_id]
            request.now = step.second * 1000
            if step.kind == self.measured_at:
                self._measure(request, peer, step, hit)
            if step.kind == RELEASE:
                self._release(request, peer, step, hit)
        return []

    def _pick(self, step: Step, hit: Hit) -> list[Odds]:
        request = self.requests.get(step.request_id) or self._arrive(step, hit)
        request.now = step.second * 1000
        odds = [self._odds(request)] if self.known is Known.TURNS else self._all_odds(request, step)
        if peer := self.peers.get(step.server):
            if request.group.backup and peer in request.group.backup.peers:
                request.group = request.group.backup
            record_pick(peer, request)
            self.held[step.request_id] = peer
        else:  # no live upstreams: nothing is released later
            del self.requests[step.request_id]
        return odds

    def _arrive(self, step: Step, hit: Hit) -> Request:
        arrival = replay.arrival(self.upstream, hit, lasting=False)
        now = step.second * 1000
        request = Request(arrival, self.group, self.budget, now, now, hint=arrival.sticky)
        self.requests[step.request_id] = request
        return request

    def _odds(self, request: Request) -> Odds:
        """The probabilities of a request's servers by the claim; takes the claim's turn."""
        if isinstance(self.method, Random) and self._is_drawn(request):
            odds = self.method.odds(request)
            return {peer.name: chance for peer, chance in odds.items() if chance}
        peer = self.method.get(request)
        return {peer.name if peer else None: 1.0}

    def _all_odds(self, request: Request, step: Step) -> list[Odds]:
        """All possible probabilities of a request while part of nginx's state is unknown.

        A retry continues its first attempt, which may have skipped servers at max_conns.
        """
        if self.known is Known.NOTHING or step.attempt:
            self.leads = self.leads.forgotten()
            return self.anywhere()
        turns = [self._turn_in_favour(peer, request) for peer in self.group.everyone]
        # a bound server is charged for turns that it did not win
        if self.regaining or bound(request):
            self.leads = self.leads.forgotten()
            return [turn.odds for turn in turns]
        possible = [turn for turn in turns if self.leads.allow(turn)] or turns
        self.leads = self.leads.after(turns, self.peers.get(step.server))
        return [turn.odds for turn in possible]

    def anywhere(self) -> list[Odds]:
        """Every server, and "no live upstreams": the probabilities of an undecided pick."""
        return [{name: 1.0} for name in (*self.peers, None)]

    def _turn_in_favour(self, favoured: Peer, request: Request) -> Turn:
        """The turn if one peer's score wins every turn that it takes part in.

        The other scores decrease from peer to peer: under least_time a winner with another weight
        excludes later tied peers, and with these scores none does.
        """
        everyone = self.group.everyone
        for number, peer in enumerate(everyone):
            peer.score = -number * FAR
        favoured.score = FAR
        before = [peer.score for peer in everyone]
        odds = self._odds(_copy(request))
        changes = [peer.score - score for peer, score in zip(everyone, before, strict=True)]
        self.forget_turns()
        return Turn(odds, tuple(changes))

    def forget_turns(self) -> None:
        """Reset the peers' scores, so that states that differ only in scores are equal."""
        for peer in self.group.everyone:
            peer.score, peer.effective = 0, peer.weight

    def _is_drawn(self, request: Request) -> bool:
        """Whether a draw decides, and neither sticky nor turns."""
        peers = request.group.peers
        return len(peers) > 1 and not bound(request) and bool(eligible_of(peers, request))

    def _measure(self, request: Request, peer: Peer, step: Step, hit: Hit) -> None:
        """Add a response's times to its server's averages; a failed attempt has none."""
        header = replay.value_at(hit.upstream_header_time, step.attempt)
        response = replay.value_at(hit.upstream_response_time, step.attempt)
        last = step.attempt == len(hit.upstream_addr) - 1
        if self.timed and last and header is not None and response is not None:
            self.timed.ended(request, peer, round(header * 1000), round(response * 1000))

    def _release(self, request: Request, peer: Peer, step: Step, hit: Hit) -> None:
        del self.held[step.request_id]
        self.regaining |= step.failed
        record_release(peer, request, failed=step.failed)
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
        return State(peers, times, dict(self.requests), dict(self.held), self.leads)

    def load(self, state: State) -> None:
        """Set the model back to a state."""
        for peer, values in zip(self.group.everyone, state.peers, strict=True):
            peer.score, peer.effective, peer.conns, peer.fails, peer.accessed, peer.checked = values
        timed = self.timed.times.values() if self.timed else ()
        for times, (header, response) in zip(timed, state.times, strict=True):
            times.header, times.response = header, response
        self.requests, self.held = dict(state.requests), dict(state.held)
        self.leads = state.leads


def _copy(request: Request) -> Request:
    return replace(request, tried=set(request.tried), attempts=list(request.attempts))


@dataclass(slots=True, eq=False)
class Node:
    """A state within a cluster: the remaining steps, and the ways that lead to it."""

    state: State
    left: Sequence[Step]
    ways: list["Way"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Way:
    """A step from one state to the next, with its probabilities if it is a pick."""

    origin: Node
    step: Step
    odds: Sequence[Odds]


class Replay:
    """A model that follows the order of events, in every state that nginx may be in."""

    def __init__(self, model: Model, hits: Mapping[str, Hit]) -> None:
        self.model = model
        self.hits = hits
        self.states: list[State] = []  # where there are several; else the model holds the only one

    def weigh(self, cluster: Sequence[Step]) -> list[Weighed]:
        """Weigh the picks of the next cluster, in all its orders and from all states."""
        if len(cluster) == 1 and not self.states:
            (step,) = cluster
            odds = self.model.take(step, self.hits[step.request_id])
            return [_weighed(self.model.upstream, step, odds)] if step.kind == PICK else []
        if self.model.known is Known.NOTHING:
            return self._weighed(cluster, self._take(cluster))
        states = self.states or [self.model.save()]
        ends = self._ends(states, cluster)
        if ends is None:
            return self._weigh_unknown(states, cluster)
        if not ends:  # the claim is contradicted: replay what was seen, in the trace's order
            self.model.load(states[0])
            self.states = []
            return self._weighed(cluster, self._take(cluster))
        self._go_on([end.state for end in ends])
        return self._weighed(cluster, odds_on_the_way(ends))

    def _weighed(
        self, cluster: Sequence[Step], odds: Mapping[Step, Sequence[Odds]]
    ) -> list[Weighed]:
        upstream = self.model.upstream
        return [_weighed(upstream, step, odds[step]) for step in cluster if step.kind == PICK]

    def _take(self, steps: Sequence[Step]) -> dict[Step, Sequence[Odds]]:
        """Apply steps one after the other; return the probabilities of each."""
        return {step: self.model.take(step, self.hits[step.request_id]) for step in steps}

    def _ends(self, states: Sequence[State], cluster: Sequence[Step]) -> list[Node] | None:
        """The states after a cluster, by every order in which the claim allows all its picks.

        None if this takes more than MOST_TRIED events to replay.
        Orders that lead to the same state by the same steps are followed as one from there on.
        """
        nodes, tried = [Node(state, cluster) for state in states], 0
        for _ in cluster:
            following: dict[tuple[object, ...], Node] = {}
            for node in nodes:
                steps = firsts(node.left)
                tried += len(steps)
                if tried > MOST_TRIED:
                    return None
                for step in steps:
                    self._follow(node, step, following)
            nodes = list(following.values())
        return nodes

    def _follow(self, node: Node, step: Step, following: dict[tuple[object, ...], Node]) -> None:
        """Add the state to which a step leads, if the claim allows the step."""
        self.model.load(node.state)
        odds = self.model.take(step, self.hits[step.request_id], shared=True)
        server = seen(self.model.upstream, step)
        if step.kind == PICK and not any(chances.get(server) for chances in odds):
            return
        state = self.model.save()
        left = [other for other in node.left if other is not step]
        key = (*map(id, left), state.key)
        reached = following.setdefault(key, Node(state, left))
        reached.state = reached.state.either(state)
        reached.ways.append(Way(node, step, odds))

    def _go_on(self, states: Sequence[State]) -> None:
        """Continue with the distinct states; of too many, with what they have in common."""
        by_key: dict[tuple[object, ...], State] = {}
        for state in states:
            key = state.key
            by_key[key] = by_key.get(key, state).either(state)
        distinct = list(by_key.values())
        self.model.load(distinct[0])
        self.states = distinct if 1 < len(distinct) <= MOST_STATES else []
        if len(distinct) > MOST_STATES:
            self._forget(distinct, ())

    def _weigh_unknown(self, states: Sequence[State], cluster: Sequence[Step]) -> list[Weighed]:
        """Give the picks 0 to 1, and continue with what they imply in any order."""
        self.model.load(states[0])
        self._take(cluster)
        after = self.model.save()
        if self._takes_plain_turns(states, cluster):
            self._go_on([self._turned(state, after, cluster) for state in states])
        else:
            self._forget([*states, after], cluster)
        anywhere = self.model.anywhere()
        return self._weighed(cluster, dict.fromkeys(cluster, anywhere))

    def _takes_plain_turns(self, states: Sequence[State], cluster: Sequence[Step]) -> bool:
        """Whether every pick is a turn of all servers, so that no order changes the scores."""
        upstream, group = self.model.upstream, self.model.group
        names = {peer.name for peer in group.live}
        return (
            self.model.known is Known.TURNS
            and upstream.record.by_turns
            and not (upstream.sticky or group.single)
            and not any(server.max_conns for server in upstream.servers)
            and not _failed(states, cluster)
            and not self._is_regaining(states)
            and all(step.attempt == 0 and step.server in names for step in cluster)
        )

    def _is_regaining(self, states: Sequence[State]) -> bool:
        """Whether a server that failed is regaining effective weight, turn by turn."""
        weights = [peer.weight for peer in self.model.group.everyone]
        return any([values[1] for values in state.peers] != weights for state in states)

    def _turned(self, before: State, after: State, cluster: Sequence[Step]) -> State:
        """A state after plain turns: each credits every server and reduces the winner's score."""
        live = self.model.group.live
        total = sum(peer.weight for peer in live)
        picked = [step.server for step in cluster if step.kind == PICK]
        peers = tuple(
            (
                old[0] + len(picked) * peer.weight - picked.count(peer.name) * total
                if peer in live
                else old[0],
                *new[1:],
            )
            for peer, old, new in zip(
                self.model.group.everyone, before.peers, after.peers, strict=True
            )
        )
        return replace(after, peers=peers)

    def _forget(self, states: Sequence[State], cluster: Sequence[Step]) -> None:
        """Continue with the model's open requests, without what differs between states."""
        self.states = []
        if self.model.timed or _failed(states, cluster):
            self.model.known = Known.NOTHING
        elif self.model.known is Known.TURNS:
            self.model.known = Known.LOADS
        self.model.regaining |= self._is_regaining(states)
        self.model.leads = self.model.leads.forgotten()
        self.model.forget_turns()


def _failed(states: Sequence[State], cluster: Sequence[Step]) -> bool:
    """Whether a server has failed, so that the order of events decides who is banned."""
    fails = any(values[3] for state in states for values in state.peers)
    return fails or any(step.failed for step in cluster)


def odds_on_the_way(ends: Sequence[Node]) -> dict[Step, list[Odds]]:
    """The probabilities of each step of a cluster, over all ways that lead to its ends."""
    odds: dict[Step, list[Odds]] = {}
    nodes = {id(node): node for node in ends}
    while nodes:
        ways = [way for node in nodes.values() for way in node.ways]
        for way in ways:
            odds.setdefault(way.step, []).extend(way.odds)
        nodes = {id(way.origin): way.origin for way in ways}
    return odds


def _weighed(upstream: Upstream, step: Step, odds: Sequence[Odds]) -> Weighed:
    """A pick with the bounds of its probabilities over all orders and states."""
    server = seen(upstream, step)
    if len(odds) == 1:
        chance = odds[0].get(server, 0.0)
        return Weighed(step, chance, chance, odds[0], odds[0])
    servers = {name for chances in odds for name in chances}
    least = {name: min(chances.get(name, 0.0) for chances in odds) for name in servers}
    most = {name: max(chances.get(name, 0.0) for chances in odds) for name in servers}
    return Weighed(step, least.get(server, 0.0), most.get(server, 0.0), least, most)


def seen(upstream: Upstream, step: Step) -> str | None:
    """The server of a pick as named in the claim; None for "no live upstreams"."""
    if step.server != upstream.name:
        return step.server
    names = (server.name for server in upstream.servers)
    return step.server if step.server in names else None
