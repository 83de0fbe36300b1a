"""Bounds of the scores of smooth weighted round robin, derived from observed turns.

The winner of a turn has the highest score of its participants. So each turn bounds how far the
winner's score is ahead of the others; the change of every score is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...oracle.base import Peer
from ..chance.bounds import Array

FAR = 10**9  # a lead that is not bounded


@dataclass(frozen=True, slots=True)
class Turn:
    """The pick if one server has the highest score, and the resulting change of each score.

    The changes are all 0 where no turn is taken.
    """

    odds: Mapping[str | None, float]
    changes: tuple[int, ...]

    @property
    def taken(self) -> bool:
        """Whether several servers took part."""
        return any(self.changes)

    @property
    def winner(self) -> int:
        """The number of the server whose score was reduced for the turn."""
        return self.changes.index(min(self.changes))


@dataclass(frozen=True, slots=True, eq=False)
class Leads:
    """The minimum lead of each server's score over each other's: row over column."""

    peers: Sequence[Peer]
    least: Array

    @classmethod
    def unknown(cls, peers: Sequence[Peer]) -> "Leads":
        """The leads of unknown scores."""
        return cls(peers, np.full((len(peers), len(peers)), -FAR))

    def forgotten(self) -> "Leads":
        """The same servers with unknown leads."""
        return self if (self.least == -FAR).all() else Leads.unknown(self.peers)

    def either(self, other: "Leads") -> "Leads":
        """The bounds that are valid for both these leads and others."""
        return replace(self, least=np.minimum(self.least, other.least))

    def allow(self, turn: Turn) -> bool:
        """Whether the winner of a turn may have had the highest score."""
        if not turn.taken:
            return True
        most = -self.least[:, turn.winner]
        return bool((self._needed(turn) <= most).all())

    def after(self, turns: Iterable[Turn], picked: Peer | None) -> "Leads":
        """The leads after a pick, by its turn; unknown if it fits no turn."""
        taken = [turn for turn in turns if turn.taken]
        if not taken:
            return self
        for turn in taken:
            if self.peers[turn.winner] is picked and self.allow(turn):
                return self._after(turn)
        return self.forgotten()

    def _needed(self, turn: Turn) -> Array:
        """The minimum lead of the winner over each server before the turn; the first wins a tie."""
        winner, weights = turn.winner, np.array([peer.weight for peer in self.peers])
        beside = np.array(turn.changes) != 0
        needed = weights - weights[winner] + (np.arange(len(weights)) < winner)
        needed = np.where(beside, needed, -FAR)
        needed[winner] = -FAR
        return needed

    def _after(self, turn: Turn) -> "Leads":
        """The leads after an observed turn."""
        least, changes = self.least.copy(), np.array(turn.changes)
        least[turn.winner] = np.maximum(least[turn.winner], self._needed(turn))
        least += np.where(least > -FAR // 2, changes[:, None] - changes[None, :], 0)
        return replace(self, least=least)
