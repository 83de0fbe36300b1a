"""Bounds of the probability of each pick under a hypothesis, and the likelihood ratio."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NEARLY = 0.01  # bounds this close to each other are as good as one number


@dataclass(frozen=True, eq=False)
class Bounds:
    """For each pick and server, the lowest and the highest probability under one hypothesis.

    A row is a pick in the order of the evidence, a column a server; the last column is "no live
    upstreams". `seen` is the column of the server that nginx picked. If the evidence determines the
    probabilities exactly, `low` and `high` are equal. `doubt` is the share of picks whose bounds
    may be wrong because a clock lagged; 0 if no clock matters.
    """

    seen: Array
    low: Array
    high: Array
    doubt: float = 0.0

    @property
    def number(self) -> int:
        """How many picks were judged."""
        return len(self.seen)

    @property
    def known(self) -> Array:
        """The picks whose probabilities are known, except for rare fallbacks to round robin."""
        known: Array = (self.high - self.low).max(axis=1) < NEARLY
        return known

    def first(self, number: int | None) -> "Bounds":
        """The bounds of the first picks only; of all with None."""
        return Bounds(self.seen[:number], self.low[:number], self.high[:number], self.doubt)

    def contradictions(self) -> Array:
        """The rows whose server the hypothesis cannot have picked."""
        rows = np.arange(self.number)
        return np.flatnonzero(self.high[rows, self.seen] <= 0)

    @cached_property
    def guess(self) -> Array:
        """One distribution per row within the bounds: the middle of the possible range."""
        middle = self.low + self.high
        total = middle.sum(axis=1, keepdims=True)
        columns = middle.shape[1]
        return np.where(total > 0, middle / np.where(total > 0, total, 1), 1 / columns)


def unknown(seen: Array, columns: int) -> Bounds:
    """The bounds of a hypothesis about which there is no evidence."""
    return Bounds(seen, np.zeros((len(seen), columns)), np.ones((len(seen), columns)))


def diverted(bounds: Bounds, server: int, share: float) -> Bounds:
    """The bounds of a hypothesis with a share of its picks diverted to one server."""
    low, high = bounds.low * (1 - share), bounds.high * (1 - share)
    low[:, server] += share
    high[:, server] += share
    return replace(bounds, low=low, high=high)


def bet(favoured: Bounds, against: Bounds) -> float:
    """The evidence of the picks for one hypothesis against another: the logarithm of odds.

    If `against` is true, the odds reach a factor F with a probability of at most 1/F, for any
    number of picks. (Each pick multiplies them by the ratio of two probabilities, whose expected
    value under `against` is at most 1.) Only picks that are expected to support `favoured` count;
    this selection does not depend on the server that was picked.
    """
    expected = favoured.guess
    limit = against.high
    if doubt := max(favoured.doubt, against.doubt):
        expected = (1 - doubt) * expected + doubt / expected.shape[1]
        limit = (1 - doubt) * limit + doubt
    rows = np.arange(favoured.number)
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = np.where(expected > 0, np.log(expected) - np.log(limit), 0.0)
        worth = (expected * np.where(np.isinf(gains), 50.0, gains)).sum(axis=1) > 1e-12
    taken = gains[rows, favoured.seen]
    taken = np.where(expected[rows, favoured.seen] > 0, taken, -np.inf)
    return float(taken[worth].sum()) if worth.any() else 0.0


def moved(claim: Bounds, other: Bounds) -> float:
    """The share of requests that a hypothesis sends to another server, where both are known."""
    both = claim.known & other.known
    if not both.any():
        return 1.0
    return float(np.abs(claim.low[both] - other.low[both]).sum(axis=1).mean() / 2)


def same(claim: Bounds, other: Bounds) -> bool:
    """Whether two hypotheses have equal, known probabilities for every pick."""
    return bool(claim.known.all() and other.known.all()) and moved(claim, other) < 1e-9


def likeness(bounds: Bounds, noise: float = 0.02) -> float:
    """The log likelihood of a hypothesis, allowing a few arbitrary picks; for comparisons."""
    columns = bounds.low.shape[1]
    chances = bounds.guess[np.arange(bounds.number), bounds.seen]
    return float(np.log((1 - noise) * chances + noise / columns).sum())
