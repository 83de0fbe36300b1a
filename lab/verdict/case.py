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
from .picks import WIDE

CLOCK = 0.005  # seconds from the start of a request to its pick


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement as a person would write it: the word, the method, the numbers, why.

    `decided` is the share of picks that could be decided, None where all were. `command` would
    settle an UNSURE.
    """

    word: Word
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
        """The split and the reason, or why there is no verdict."""
        if self.word == Word.PASS:
            return f"{self.split_text}  ({self.why})"
        if self.word == Word.FAIL:
            return f"{self.split_text}   {self.why}"
        return f"{self.why}: {self.command}" if self.command else self.why


@dataclass(frozen=True)
class Case:
    """One log against one claim; `earlier` hits are load on the servers, and not judged.

    `order` is nginx's own order of picks and releases, None where there is no trace of it;
    `by_id` then has the hits by the ids of their requests.
    `disturbed` says that a server failed or could be full, so that order decides what nginx does;
    `workers` is how many of nginx's workers the log shows; `alone` compares with the claim and
    with no alternatives. `returning` requests came from clients that send back every cookie that
    an earlier response set.
    """

    upstream: Upstream
    hits: Sequence[Hit]
    sequential: bool
    addresses: Mapping[str, tuple[str, ...]]
    fresh: bool
    clock: float = WIDE
    since: float = -math.inf
    earlier: Sequence[Hit] = ()
    order: Sequence[Step] | None = None
    by_id: Mapping[str, Hit] = field(default_factory=dict)
    disturbed: bool = False
    workers: int = 1
    alone: bool = False
    returning: int = 0

    @cached_property
    def answered(self) -> list[Hit]:
        """The requests that a server answered, in the order in which they began."""
        hits = [hit for hit in self.hits if replay.seen(self.upstream, hit).server is not None]
        return sorted(hits, key=replay.start)

    @property
    def label(self) -> str:
        """The lab's word for what is claimed."""
        return self.upstream.label

    def says(
        self, word: Word, why: str, command: str = "", decided: float | None = None
    ) -> Verdict:
        """A verdict on this case."""
        counts = Counter(replay.seen(self.upstream, hit).server for hit in self.hits)
        text = written(self.upstream, counts)
        return Verdict(word, self.label, text, why, len(self.hits), decided, command)


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


def observed(case: Case) -> Counter[str | None]:
    """How often each server answered."""
    return Counter(replay.seen(case.upstream, hit).server for hit in case.hits)


def column_of(case: Case) -> dict[str, int]:
    """The number of each server of the claim; the next one stands for "no live upstreams"."""
    names = dict.fromkeys(server.name for server in case.upstream.servers)
    return {name: number for number, name in enumerate(names)}


def disturbed(upstream: Upstream, hits: Sequence[Hit]) -> bool:
    """Whether a server failed, or could be full, so that order decides what nginx does."""
    return any(server.max_conns for server in upstream.servers) or any(
        len(hit.upstream_addr) > 1 or hit.status == 502 or replay.fault(upstream, hit, 0)
        for hit in hits
    )
