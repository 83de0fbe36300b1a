"""The case that is judged, and its verdict."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ..evidence.access_log import Hit
from ..evidence.trace import Step
from ..nginxconf.model import Upstream
from ..oracle import Pick
from ..word import Word
from . import replay
from .replay.windows import EXACT, WIDE, Served, Windows, windows

CLOCK = 0.005  # seconds from the start of a request to its pick
# The longest delay of a worker, as a multiple of the longest lag that the journals show: they show
# how late requests were sent, not how late servers were released. On a busy machine 2.1 was seen.
LONGER = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict: its word, the method, the split and the reason.

    `decided` is the share of picks that could be decided, None if all were. `command` is the run
    that would decide an UNSURE, `needed` about how many hits would; 0 if more alone would not.
    """

    word: Word
    method: str
    split_text: str
    why: str
    hits: int = 0
    decided: float | None = None
    command: str = ""
    needed: int = 0

    def __str__(self) -> str:
        return f"{self.word:<6} {self.method:<11}  {self.numbers}"

    @property
    def numbers(self) -> str:
        """The split and the reason, or the reason alone without a split."""
        if self.word == Word.PASS:
            return f"{self.split_text}  ({self.why})"
        if self.word == Word.FAIL:
            return f"{self.split_text}   {self.why}"
        return f"{self.why}: {self.command}" if self.command else self.why


@dataclass(frozen=True)
class Case:
    """One log and one claim; `earlier` hits count as load and are not judged.

    `order` is nginx's own order of picks and releases, None without a trace;
    `by_id` then has the hits by the ids of their requests.
    `clock` is the longest lag of nginx's clock by a journal, in ms; 0 without a journal.
    `disturbed` says that a server failed or may have been at max_conns, so that the order of events
    matters; `workers` is the number of nginx's workers in the log; with `alone` there are no
    alternatives. `returning` requests came from clients that return every cookie of an earlier
    response. `served` are the times at the backends, by their journals. `keys` are the hash keys
    of the requests as they were sent, by their ids; None if those of the hits are computed.
    """

    upstream: Upstream
    hits: Sequence[Hit]
    sequential: bool
    addresses: Mapping[str, tuple[str, ...]]
    fresh: bool
    clock: float = 0.0
    since: float = -math.inf
    earlier: Sequence[Hit] = ()
    order: Sequence[Step] | None = None
    by_id: Mapping[str, Hit] = field(default_factory=dict)
    disturbed: bool = False
    workers: int = 1
    alone: bool = False
    returning: int = 0
    served: Served = field(default_factory=dict)
    keys: Mapping[str, bytes] | None = None

    def windows(self, hits: Sequence[Hit], slack: float) -> Windows:
        """The pick and release windows of hits, with an error of up to `slack` ms in each time.

        If nginx's clock lagged more, the times of a delayed worker have that error.
        """
        return windows(self.upstream, hits, self.served).widened(slack, self.stall)

    @cached_property
    def exact_windows(self) -> Windows:
        """The windows of the answered hits, with the accuracy of the log."""
        return self.logged_windows.widened(EXACT, self.stall)

    @cached_property
    def wide_windows(self) -> Windows:
        """The windows of the answered hits, with the clock uncertainty of a quiet machine."""
        return self.logged_windows.widened(WIDE, self.stall)

    @cached_property
    def logged_windows(self) -> Windows:
        """The windows of the answered hits if all times of the log were exact."""
        return windows(self.upstream, self.answered, self.served)

    @property
    def stall(self) -> float:
        """How many ms a worker may have been delayed."""
        return LONGER * self.clock if self.clock > WIDE else 0.0

    @cached_property
    def answered(self) -> list[Hit]:
        """The requests that a server answered, in the order in which they began."""
        hits = [hit for hit in self.hits if replay.seen(self.upstream, hit).server is not None]
        return sorted(hits, key=replay.beginning)

    @cached_property
    def unanswered(self) -> list[Hit]:
        """The requests that found no live upstream, perhaps after servers that failed."""
        hits = (*self.earlier, *self.hits)
        return [hit for hit in hits if replay.seen(self.upstream, hit).server is None]

    @property
    def label(self) -> str:
        """The lab's name for the claimed method."""
        return self.upstream.label

    def says(
        self, word: Word, why: str, command: str = "", decided: float | None = None
    ) -> Verdict:
        """A verdict on this case."""
        counts = Counter(replay.seen(self.upstream, hit).server for hit in self.hits)
        text = written(self.upstream, counts)
        return Verdict(word, self.label, text, why, len(self.hits), decided, command)


def written(upstream: Upstream, counts: Mapping[str | None, int]) -> str:
    """A split as text, in the order of the config."""
    names = shortened(upstream)
    parts = [f"{short}: {counts.get(name, 0)}" for name, short in names.items()]
    if counts.get(None):
        parts.append(f"no live upstreams: {counts[None]}")
    return ", ".join(parts)


def shortened(upstream: Upstream) -> dict[str, str]:
    """Each server's name, without the port if all have the same."""
    names = [server.name for server in upstream.servers]
    hosts = {name: name.rpartition(":")[0] or name for name in names}
    ports = {name.rpartition(":")[2] for name in names}
    same = len(ports) == 1 < len(names) and len(set(hosts.values())) == len(set(names))
    return hosts if same else {name: name for name in names}


def difference(case: Case, number: int, pick: Pick) -> str:
    """Name the request that went to another server than predicted, and both servers."""
    hit = case.hits[number]
    names = shortened(case.upstream)
    went = route(names, replay.seen(case.upstream, hit).attempts, hit.upstream_addr[-1])
    expected = route(names, pick.attempts, pick.server)
    name = f" (id {hit.request_id})" if hit.request_id else ""
    return f"request {number + 1:,}{name} went to {went}, expected {expected}"


def route(names: Mapping[str, str], attempts: tuple[str, ...], server: str | None) -> str:
    """Name the servers that a request was tried on, and "no live upstreams" if it ended so."""
    tried = [names.get(name, name) for name in attempts]
    return ", ".join(tried if server in names else [*tried, "no live upstreams"])


def observed(case: Case) -> Counter[str | None]:
    """How often each server answered."""
    return Counter(replay.seen(case.upstream, hit).server for hit in case.hits)


def column_of(case: Case) -> dict[str, int]:
    """The number of each server of the claim; the next one stands for "no live upstreams"."""
    names = dict.fromkeys(server.name for server in case.upstream.servers)
    return {name: number for number, name in enumerate(names)}


def disturbed(upstream: Upstream, hits: Sequence[Hit], *, sequential: bool) -> bool:
    """Whether a server failed or may have been at max_conns, so that event order matters.

    A sequential request may arrive just before nginx releases the one before it, so that one is
    still in flight, but never two.
    """
    most_in_flight = 1 if sequential else math.inf
    return any(0 < server.max_conns <= most_in_flight for server in upstream.servers) or any(
        len(hit.upstream_addr) > 1 or hit.status == 502 or replay.fault(upstream, hit, 0)
        for hit in hits
    )
