"""How far random counts may deviate, and how many draws a verdict needs."""

from collections.abc import Mapping
from math import ceil, inf, isnan, log, log1p, sqrt
from statistics import NormalDist

from scipy.special import bdtr, bdtrc, bdtrik

ALARM = 1e-9  # a correct nginx deviates this far once in 10^9 runs
SURE = 0.999  # and one that doubles a server's share is detected with this probability


def improbable(counts: Mapping[str, int], chances: Mapping[str, float]) -> str | None:
    """The first server whose count its probability cannot explain; None if there is none.

    Each count is binomial; the false-alarm probability is divided among them.
    """
    total = sum(counts.values())
    for name, chance in chances.items():
        count = counts.get(name, 0)
        low = bdtr(count, total, chance)
        high = bdtrc(count - 1, total, chance) if count else 1.0
        if 2 * min(low, high) < ALARM / len(chances):
            return name
    return None


def band(chance: float, total: int, among: int) -> tuple[int, int]:
    """The lowest and the highest count that a probability allows in `total` draws."""
    tail = ALARM / among / 2
    return _quantile(tail, total, chance), total - _quantile(tail, total, 1 - chance)


def _quantile(share: float, total: int, chance: float) -> int:
    """The least count that `share` of all binomial draws does not exceed."""
    if chance >= 1:
        return total
    quantile = bdtrik(share, total, chance)  # not a number where even 0 is more than the share
    count: int = 0 if isnan(quantile) else max(ceil(quantile), 0)
    return count - 1 if count and bdtr(count - 1, total, chance) >= share else count


def _beyond(share: float) -> float:
    """The standard deviations that only `share` of a normal distribution exceeds."""
    return -NormalDist().inv_cdf(share)


def draws_to_tell(chances: Mapping[str, float]) -> int:
    """How many draws show a server of twice its weight, rounded up to hundreds."""
    alarm = _beyond(ALARM / len(chances) / 2)
    power = _beyond(1 - SURE)
    needed = 0.0
    for chance in chances.values():
        if not 0 < chance < 1:
            continue
        other = 2 * chance / (1 + chance)
        spread = alarm * sqrt(chance * (1 - chance)) + power * sqrt(other * (1 - other))
        needed = max(needed, (spread / (other - chance)) ** 2)
    return -int(-needed // 100) * 100


def far(observed: float, least: float, most: float, variance: float, among: int) -> bool:
    """Whether a sum of draws is outside its expected bounds by more than chance explains.

    The draws need not be independent: each probability is conditional on the earlier draws.
    """
    beyond = max(least - observed, observed - most)
    return beyond > 1 and _surprise(beyond, variance) > log(2 * among / ALARM)


def _surprise(beyond: float, variance: float) -> float:
    """How improbable such a sum is, as a negative logarithm at least: Freedman's inequality."""
    if variance <= 0:
        return inf
    ratio = beyond / variance
    return variance * ((1 + ratio) * log1p(ratio) - ratio)
