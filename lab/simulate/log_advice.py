"""Which method for the traffic of an access log: replay it by all that the log shows, and rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..whatif.replay import WhatIf
from ..whatif.spread import Spread
from .advice import CANDIDATES, COSTS, NOTICEABLE, config_of

UNSEEN = (
    "all servers are equal and cache nothing: a log shows neither; with a fleet of others,"
    " lab advise --fleet"
)


@dataclass(frozen=True, slots=True)
class LogRanked:
    """A method's place: 1 for the best and all that tie with it.

    `peak` is the most requests that a server had in flight at once, `peak_without` the same with
    the busiest server gone.
    """

    method: str
    place: int
    peak: int
    peak_without: int
    why: str
    costs: str


@dataclass(frozen=True, slots=True)
class LogAdvice:
    """The ranking of the methods that a log shows, and the config of the best one."""

    requests: int
    ranking: tuple[LogRanked, ...]
    left_out: dict[str, str]
    assumptions: tuple[str, ...]
    config: str

    @property
    def best(self) -> tuple[str, ...]:
        """The best method, or all that tie, the simplest first."""
        return tuple(row.method for row in self.ranking if row.place == 1)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "requests": self.requests,
            "use": self.best[0],
            "tie": list(self.best) if len(self.best) > 1 else None,
            "ranking": [
                {name: getattr(row, name) for name in LogRanked.__dataclass_fields__}
                for row in self.ranking
            ],
            "left_out": self.left_out,
            "assumptions": list(self.assumptions),
            "config": self.config,
        }


def advise(replayed: WhatIf, servers: Sequence[str]) -> LogAdvice:
    """Rank the methods that a log was replayed by.

    The lowest peak of requests in flight on any server is the best. A peak that is higher by at
    most 5 %, or by one request, ties; of those that tie, the simplest method comes first.
    """
    spreads = sorted(
        (one for one in replayed.spreads if one.method in CANDIDATES),
        key=lambda one: (_peak(one), CANDIDATES.index(one.method)),
    )
    groups: list[list[Spread]] = []
    for one in spreads:
        if groups and _ties(one, groups[-1][0]):
            groups[-1].append(one)
        else:
            groups.append([one])
    ranking: list[LogRanked] = []
    for group in groups:
        place = len(ranking) + 1
        ordered = sorted(group, key=lambda one: CANDIDATES.index(one.method))
        ranking += [_ranked(one, place, len(group) > 1, spreads[0]) for one in ordered]
    return LogAdvice(
        replayed.requests,
        tuple(ranking),
        replayed.left_out,
        (*replayed.assumptions, UNSEEN),
        config_of(ranking[0].method, servers),
    )


def _peak(spread: Spread) -> int:
    return max(spread.peak.values())


def _ties(spread: Spread, best: Spread) -> bool:
    return _peak(spread) - _peak(best) <= max(1, NOTICEABLE * _peak(best))


def _ranked(spread: Spread, place: int, tied: bool, best: Spread) -> LogRanked:
    if place == 1:
        why = "a tie" if tied else "the best"
    else:
        why = f"peak {_peak(spread) / _peak(best) - 1:+.0%} of {best.method}'s"
    costs = COSTS[spread.method]
    return LogRanked(spread.method, place, _peak(spread), spread.peak_without, why, costs)
