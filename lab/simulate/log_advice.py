"""Rank the methods for the traffic of an access log, by the peaks of their replays."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..whatif.replay import WhatIf
from ..whatif.spread import Spread
from .advice import CANDIDATES, NOTICEABLE, config_of

NOT_IN_LOG = (
    "all servers are equal and cache nothing, as a log shows neither; for other servers, describe"
    " the fleet to lab advise --fleet"
)


@dataclass(frozen=True, slots=True)
class LogRanked:
    """A method's place in the ranking: 1 for the best and for all that tie with it.

    `peak` is the highest number of requests in flight on any server; `peak_without` is the same
    in a replay without the server that had this peak. `why` says how it compares with the best.
    """

    method: str
    place: int
    peak: int
    peak_without: int
    why: str
    costs: str


@dataclass(frozen=True, slots=True)
class LogAdvice:
    """The ranking of the methods that the log was replayed by, and the config of the best.

    `malformed` lines of the log are no requests. `left_out` gives the reason for each method that
    the log has no data for.
    """

    requests: int
    malformed: int
    ranking: tuple[LogRanked, ...]
    left_out: dict[str, str]
    assumptions: tuple[str, ...]
    config: str

    @property
    def best(self) -> tuple[str, ...]:
        """The names of all methods in first place, the simplest first."""
        return tuple(row.method for row in self.ranking if row.place == 1)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "requests": self.requests,
            "malformed": self.malformed,
            "use": self.best[0],
            "tie": list(self.best) if len(self.best) > 1 else None,
            "ranking": [asdict(row) for row in self.ranking],
            "left_out": self.left_out,
            "assumptions": list(self.assumptions),
            "config": self.config,
        }


def advise(replayed: WhatIf, servers: Sequence[str]) -> LogAdvice:
    """Rank the methods that a log was replayed by.

    The method with the lowest peak of requests in flight on any server is the best. A peak that is
    at most 5 % or one request higher ties; of tied methods the simplest comes first.
    """
    spreads = sorted(
        (spread for spread in replayed.spreads if spread.method in CANDIDATES),
        key=lambda spread: (_peak(spread), _rank(spread)),
    )
    groups: list[list[Spread]] = []
    for spread in spreads:
        if groups and _ties(spread, groups[-1][0]):
            groups[-1].append(spread)
        else:
            groups.append([spread])
    ranking: list[LogRanked] = []
    for group in groups:
        place = len(ranking) + 1
        ranking += [
            _ranked(spread, place, len(group) > 1, spreads[0])
            for spread in sorted(group, key=_rank)
        ]
    return LogAdvice(
        replayed.requests,
        replayed.malformed,
        tuple(ranking),
        replayed.left_out,
        (*replayed.assumptions, NOT_IN_LOG),
        config_of(ranking[0].method, servers),
    )


def _peak(spread: Spread) -> int:
    return max(spread.peak.values())


def _rank(spread: Spread) -> int:
    return CANDIDATES[spread.method].rank


def _ties(spread: Spread, best: Spread) -> bool:
    return _peak(spread) - _peak(best) <= max(1, NOTICEABLE * _peak(best))


def _ranked(spread: Spread, place: int, tied: bool, best: Spread) -> LogRanked:
    if place == 1:
        why = "a tie" if tied else "the best"
    else:
        why = f"peak {_peak(spread) / _peak(best) - 1:+.0%} of {best.method}'s"
    costs = CANDIDATES[spread.method].costs
    return LogRanked(spread.method, place, _peak(spread), spread.peak_without, why, costs)
