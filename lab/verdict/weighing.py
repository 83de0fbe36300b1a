"""Weigh a claim against its alternatives: what the evidence excludes, and what it looks like."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, log, sqrt

import numpy as np

from ..nginxconf.model import Upstream
from .bounds import Array, Bounds, bet, likeness, moved, same, shared
from .case import Case, column_of, shortened
from .hypotheses import Hypothesis, alternatives, compound
from .likelihoods import likelihoods

EXCLUDED = log(1e6)  # an alternative that is true is excluded once in a million runs
LIKELY = log(1e3)  # what speaks for a share, where clocks decide, before a PASS is refused
ALARM = log(1e9)  # a claim that is true fails once in a thousand million runs
SHARES = (0.1, 0.2)  # of requests taken from the rule: these a PASS must exclude
FINEST = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)  # shares that may be detected
SLIGHT = 0.05  # alternatives that move fewer requests than this need not be excluded
PREFIXES = (200, 1_000, 5_000, 20_000)  # picks on which alternatives are tried in turn
SAME_SO_FAR = 5_000  # picks after which two hypotheses that never differed count as the same
SPREAD = 3.3  # standard deviations by which evidence may fall short: one run in 2,000


@dataclass(frozen=True, slots=True)
class Weighing:
    """Compare a claim with its alternatives.

    `excluded` holds the kinds of alternatives that the evidence excludes, `same` those that are
    the same on this traffic, `slight` those that move less than SLIGHT of the requests and are
    not excluded, `possible` the names of those that count against the claim. `share` is the
    smallest share that is excluded, whichever server would get it. `better` is an alternative
    that explains the evidence so much better that the claim fails. `needed` is how many requests
    would exclude what is possible; 0 where more requests alone would not.
    """

    excluded: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    slight: tuple[str, ...] = ()
    possible: tuple[str, ...] = ()
    share: float | None = None
    better: str = ""
    needed: int = 0

    @property
    def text(self) -> str:
        """What a PASS says of it."""
        share = [f"a share of {self.share:.0%} or more"] if self.share else []
        excluded = [*self.excluded, *share]
        parts = [f"excludes: {', '.join(excluded)}"] if excluded else []
        if self.same:
            parts.append(f"the same on this traffic: {', '.join(self.same)}")
        if self.slight:
            parts.append(f"too slight to tell: {', '.join(self.slight)}")
        return "; ".join(parts)


def weigh(case: Case, claim: Bounds) -> Weighing:
    """Weigh the claim against every alternative and against shares taken from it."""
    fates = [weighed_one(case, claim, other) for other in alternatives(case.upstream, case.workers)]
    shares = [share_fate(case, claim, share, column) for share, column in every_share(case)]
    better = [fate for fate in fates if fate.against > ALARM + log(max(len(fates), 1))]
    if not claim.doubt:  # a clock that lags looks like a share
        better += [fate for fate in shares if fate.against > ALARM + log(len(shares))]
    missing = [fate for fate in (*fates, *shares) if fate.word == "possible"]
    if claim.number == 0:
        return Weighing()
    return Weighing(
        kinds(fates, "excluded"),
        kinds(fates, "same"),
        tuple(dict.fromkeys(fate.name for fate in fates if fate.word == "slight")),
        tuple(fate.name for fate in missing),
        smallest_share(case, claim),
        max(better, key=lambda fate: fate.against).name if better else "",
        hits_for(claim, missing),
    )


@dataclass(frozen=True, slots=True)
class Fate:
    """An alternative after weighing: excluded, same, slight or possible.

    `gain` is the logarithm of the odds against it, `against` of those against the claim.
    """

    kind: str
    name: str
    word: str
    gain: float
    against: float = -inf


def weighed_one(case: Case, claim: Bounds, other: Hypothesis) -> Fate:
    """Weigh one alternative on more and more picks, until it is excluded or all are seen."""
    name, gain = readable(case, other.name), -inf
    for number in (*(n for n in PREFIXES if n < claim.number), min(claim.number, PREFIXES[-1])):
        bounds = likelihoods(other.upstream, case, number)
        part = claim.first(number)
        gain = bet(part, bounds)
        if gain >= EXCLUDED:
            return Fate(other.kind, name, "excluded", gain)
        if number >= SAME_SO_FAR and same(part, bounds):
            break
    if same(part, bounds):
        return Fate(other.kind, name, "same", 0.0)
    word = "slight" if moved(part, bounds) < SLIGHT else "possible"
    return Fate(other.kind, name, word, gain, bet(bounds, part))


def every_share(case: Case) -> Iterator[tuple[float, int]]:
    """Each share beside each server that could get it."""
    for share in SHARES:
        for column in column_of(case).values():
            yield share, column


def share_fate(case: Case, claim: Bounds, share: float, column: int) -> Fate:
    """Weigh the alternative that a share of the requests goes to one server, whatever the rule."""
    other = shared(claim, column, share)
    gain, server = bet(claim, other), list(column_of(case))[column]
    name = f"{share:.0%} of requests taken to {shortened(case.upstream)[server]}"
    if gain >= EXCLUDED:
        return Fate("a share", name, "excluded", gain)
    against = bet(other, claim)
    slight = moved_by(claim, share, column) < SLIGHT
    if claim.doubt:  # a clock that lags looks like a share: only one that is likely counts
        slight = against < LIKELY
    return Fate("a share", name, "slight" if slight else "possible", gain, against)


def moved_by(claim: Bounds, share: float, column: int) -> float:
    """How many of all requests a share moves: those that go to its server anyway stay."""
    return share * (1 - float(claim.guess()[:, column].mean())) + 1e-9


def smallest_share(case: Case, claim: Bounds) -> float | None:
    """The smallest share that is excluded for every server that it would move requests to."""
    for share in FINEST:
        fates = [share_fate(case, claim, share, column) for column in column_of(case).values()]
        moving = [fate for fate in fates if fate.gain > 0 or len(fates) > 1]
        if moving and all(fate.gain >= EXCLUDED for fate in moving):
            return share
    return None


def kinds(fates: Iterable[Fate], word: str) -> tuple[str, ...]:
    """The kinds whose alternatives all have one fate; of a mixed kind, those that are excluded."""
    words: dict[str, set[str]] = {}
    for fate in fates:
        words.setdefault(fate.kind, set()).add(fate.word)
    if word == "same":
        return tuple(kind for kind, of in words.items() if of == {"same"})
    return tuple(kind for kind, of in words.items() if word in of and of <= {word, "same"})


def hits_for(claim: Bounds, missing: Sequence[Fate]) -> int:
    """How many picks would exclude what is still possible; 0 where their number does not decide."""
    worst = min((fate.gain for fate in missing), default=inf)
    if not missing or worst <= 0:
        return 0
    return rounded(claim.number * 1.5 * EXCLUDED / worst) if isfinite(worst) else 0


def isfinite(value: float) -> bool:
    """Whether odds are neither none nor certainty."""
    return -inf < value < inf


def rounded(hits: float) -> int:
    """Up to hundreds."""
    return ceil(hits / 100) * 100


def readable(case: Case, name: str) -> str:
    """An alternative's name with its servers as a split writes them."""
    for server, short in shortened(case.upstream).items():
        name = name.replace(server, short)
    return name


# --- what a failed claim looks like ---------------------------------------------------------


def likeliest(case: Case, claim: Bounds, first: int = 0) -> str:
    """The alternative that explains the evidence best; empty where none does better."""
    columns = column_of(case)
    whole = min(claim.number, max(2_000, first + 500), PREFIXES[-1])
    candidates = [*alternatives(case.upstream, case.workers)]
    candidates += compound(case.upstream, case.workers)
    for number, keep in ((min(100, whole), 12), (min(500, whole), 5)):
        candidates = sorted(candidates, key=lambda it: -liked(case, it, number))[:keep]
    part = claim.first(whole)
    scores = {readable(case, it.name): liked(case, it, whole) for it in candidates}
    for share in (0.05, *SHARES):
        for server, column in columns.items():
            name = f"{share:.0%} of requests taken to {shortened(case.upstream)[server]}"
            scores.setdefault(name, likeness(shared(part, column, share)))
    best = max(scores, key=scores.__getitem__, default="")
    return best if best and scores[best] > likeness(part) + 1 else ""


def liked(case: Case, other: Hypothesis, number: int) -> float:
    """How well an alternative explains the first picks."""
    return likeness(likelihoods(other.upstream, case, number))


# --- how many requests it takes --------------------------------------------------------------


def picks_to_tell(
    rows: Sequence[Array],
    others: Iterable[Sequence[Array]],
    weights: Array | None = None,
) -> int:
    """How many picks exclude other odds: one distribution a row, each row a kind of pick.

    `weights` says how often each row comes; equally often where it is not given.
    """
    often = np.full(len(rows), 1 / len(rows)) if weights is None else weights
    needed = 0.0
    for other in others:
        gain = square = moves = 0.0
        for p, q, weight in zip(rows, other, often, strict=True):
            held = p > 0
            with np.errstate(divide="ignore"):
                ratio = np.log(p[held]) - np.log(q[held])
            gain += weight * float((p[held] * ratio).sum())
            square += weight * float((p[held] * ratio**2).sum())
            moves += weight * float(np.abs(p - q).sum()) / 2
        if moves + 1e-9 < SLIGHT or not isfinite(gain) or gain <= 0:
            continue
        spread = max(square - gain**2, 0.0)
        root = (SPREAD * sqrt(spread) + sqrt(SPREAD**2 * spread + 4 * gain * EXCLUDED)) / (2 * gain)
        needed = max(needed, root**2)
    return rounded(needed)


def weights_of(upstream: Upstream) -> Iterator[Upstream]:
    """The alternatives of a claim that differ in weights alone."""
    for other in alternatives(upstream):
        if other.kind.startswith("weight"):
            yield other.upstream
