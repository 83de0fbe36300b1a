"""Compare a claim with its alternatives: which are excluded, which explains the evidence best."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, log, sqrt

import numpy as np

from ...nginxconf.model import Upstream
from ..case import Case, column_of, shortened
from ..chance.bounds import Array, Bounds, bet, diverted, likeness, moved, same
from .hypotheses import Hypothesis, alternatives, compound
from .likelihoods import likelihoods

EXCLUDED = log(1e6)  # a true alternative is excluded once in a million runs
LIKELY = log(1e3)  # evidence for a share that prevents a PASS if clocks matter
ALARM = log(1e9)  # a true claim fails once in 10^9 runs
SHARES = (0.1, 0.2)  # diverted shares of the requests that a PASS must exclude
FINEST = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)  # shares that may be detected
SLIGHT = 0.05  # alternatives that move fewer requests than this need not be excluded
MOST_NAMED = 3  # alternatives of one kind that a verdict names; of more it gives the number
PREFIXES = (200, 1_000, 5_000, 20_000)  # picks on which alternatives are tried in turn
SAME_SO_FAR = 5_000  # picks after which two hypotheses that never differed count as the same
SPREAD = 3.3  # standard deviations by which evidence may fall short: one run in 2,000


@dataclass(frozen=True, slots=True)
class Weighing:
    """The result of comparing a claim with its alternatives.

    `excluded` has the kinds of alternatives that the evidence excludes, `same` those that are equal
    on this traffic, `slight` those that move less than SLIGHT of the requests and are not excluded,
    `possible` the names of those that prevent a PASS. `share` is the smallest diverted share that
    is excluded, whichever server would get it. `better` is an alternative that explains the
    evidence so much better that the claim fails. `needed` is how many requests would exclude the
    possible ones; 0 if more requests alone would not.
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
        """The text for a PASS."""
        share = [f"a share of {self.share:.0%} or more"] if self.share else []
        excluded = [*self.excluded, *share]
        parts = [f"excludes: {', '.join(excluded)}"] if excluded else []
        if self.same:
            parts.append(f"the same on this traffic: {', '.join(self.same)}")
        if self.slight:
            parts.append(f"too similar to tell apart: {', '.join(self.slight)}")
        return "; ".join(parts)


def weigh(case: Case, claim: Bounds) -> Weighing:
    """Weigh the claim against every alternative and against shares taken from it."""
    fates = [weighed_one(case, claim, other) for other in alternatives(case.upstream, case.workers)]
    shares = [share_fate(case, claim, share, column) for share, column in every_share(case)]
    better = [fate for fate in fates if fate.against > ALARM + log(max(len(fates), 1))]
    if not claim.doubt:  # a lagging clock looks like a diverted share
        better += [fate for fate in shares if fate.against > ALARM + log(len(shares))]
    missing = [fate for fate in (*fates, *shares) if fate.word == "possible"]
    if claim.number == 0:
        return Weighing()
    return Weighing(
        kinds(fates, "excluded"),
        (*kinds(fates, "same"), *hidden_zone(case), *same_of_mixed(fates)),
        tuple(dict.fromkeys(fate.name for fate in fates if fate.word == "slight")),
        tuple(fate.name for fate in missing),
        smallest_share(case, claim),
        max(better, key=lambda fate: fate.against).name if better else "",
        hits_for(claim, missing),
    )


def hidden_zone(case: Case) -> tuple[str, ...]:
    """The zone, if one worker took all requests: the log cannot show whether it is shared."""
    stateless = case.upstream.record.stateless and not case.upstream.sticky
    shows_workers = bool(case.hits and case.hits[0].pid)
    if stateless or not shows_workers or case.workers > 1:
        return ()
    other = "no zone" if case.upstream.zone else "a shared zone"
    return (f"{other} (one worker took every request)",)


@dataclass(frozen=True, slots=True)
class Fate:
    """An alternative after weighing: excluded, same, slight or possible.

    `gain` is the logarithm of the odds against it, `against` that of the odds against the claim.
    """

    kind: str
    name: str
    word: str
    gain: float
    against: float = -inf


def weighed_one(case: Case, claim: Bounds, other: Hypothesis) -> Fate:
    """Compare one alternative on more and more picks, until it is excluded or all are used."""
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
    """Each share with each server that it could go to."""
    for share in SHARES:
        for column in column_of(case).values():
            yield share, column


def share_fate(case: Case, claim: Bounds, share: float, column: int) -> Fate:
    """Compare the alternative that a share of the requests is diverted to one server."""
    other = diverted(claim, column, share)
    gain, server = bet(claim, other), list(column_of(case))[column]
    name = f"{share:.0%} of requests diverted to {shortened(case.upstream)[server]}"
    if gain >= EXCLUDED:
        return Fate("a share", name, "excluded", gain)
    against = bet(other, claim)
    slight = moved_by(claim, share, column) < SLIGHT
    if claim.doubt:  # a lagging clock looks like a diverted share: only a likely one counts
        slight = against < LIKELY
    return Fate("a share", name, "slight" if slight else "possible", gain, against)


def moved_by(claim: Bounds, share: float, column: int) -> float:
    """The share of all requests that moves, without those that go to that server anyway."""
    return share * (1 - float(claim.guess[:, column].mean())) + 1e-9


def smallest_share(case: Case, claim: Bounds) -> float | None:
    """The smallest share that is excluded for every server that it would move requests to."""
    for share in FINEST:
        fates = [share_fate(case, claim, share, column) for column in column_of(case).values()]
        moving = [fate for fate in fates if fate.gain > 0 or len(fates) > 1]
        if moving and all(fate.gain >= EXCLUDED for fate in moving):
            return share
    return None


def kinds(fates: Iterable[Fate], word: str) -> tuple[str, ...]:
    """The kinds whose alternatives all have one fate; of a mixed kind, the excluded ones."""
    by_kind: dict[str, set[str]] = {}
    for fate in fates:
        by_kind.setdefault(fate.kind, set()).add(fate.word)
    if word == "same":
        return tuple(kind for kind, words in by_kind.items() if words == {"same"})
    return tuple(
        kind for kind, words in by_kind.items() if word in words and words <= {word, "same"}
    )


def same_of_mixed(fates: Sequence[Fate]) -> Iterator[str]:
    """The alternatives that this traffic cannot show, of kinds of which it excludes others."""
    mixed = set(kinds(fates, "excluded"))
    names: dict[str, list[str]] = {}
    for fate in fates:
        if fate.word == "same" and fate.kind in mixed:
            names.setdefault(fate.kind, []).append(fate.name)
    for kind, of in names.items():
        yield from of if len(of) <= MOST_NAMED else (f"{kind} ({len(of)})",)


def hits_for(claim: Bounds, missing: Sequence[Fate]) -> int:
    """How many picks would exclude the remaining ones; 0 if more picks would not."""
    worst = min((fate.gain for fate in missing), default=inf)
    if not missing or worst <= 0:
        return 0
    return rounded(claim.number * 1.5 * EXCLUDED / worst) if isfinite(worst) else 0


def isfinite(value: float) -> bool:
    """Whether odds are finite."""
    return -inf < value < inf


def rounded(hits: float) -> int:
    """A number of hits rounded up to hundreds."""
    return ceil(hits / 100) * 100


def readable(case: Case, name: str) -> str:
    """An alternative's name with server names as in a split."""
    for server, short in shortened(case.upstream).items():
        name = name.replace(server, short)
    return name


# --- what a failed claim looks like ---------------------------------------------------------


def likeliest(case: Case, claim: Bounds, first: int = 0) -> str:
    """The alternative that explains the evidence best; empty if none does better."""
    columns = column_of(case)
    requests = min(claim.number, max(2_000, first + 500), PREFIXES[-1])
    candidates = [*alternatives(case.upstream, case.workers)]
    candidates += compound(case.upstream, case.workers)
    for number, keep in ((min(100, requests), 12), (min(500, requests), 5)):
        candidates = sorted(candidates, key=lambda other: -log_likelihood(case, other, number))[
            :keep
        ]
    part = claim.first(requests)
    scores = {
        readable(case, other.name): log_likelihood(case, other, requests) for other in candidates
    }
    for share in (0.05, *SHARES):
        for server, column in columns.items():
            name = f"{share:.0%} of requests diverted to {shortened(case.upstream)[server]}"
            scores.setdefault(name, likeness(diverted(part, column, share)))
    best = max(scores, key=scores.__getitem__, default="")
    return best if best and scores[best] > likeness(part) + 1 else ""


def log_likelihood(case: Case, other: Hypothesis, number: int) -> float:
    """How well an alternative explains the first picks."""
    return likeness(likelihoods(other.upstream, case, number))


# --- how many requests it takes --------------------------------------------------------------


def picks_to_tell(
    rows: Sequence[Array],
    others: Iterable[Sequence[Array]],
    weights: Array | None = None,
) -> int:
    """How many picks exclude other probabilities; each row is the distribution of a kind of pick.

    `weights` has the frequency of each row; by default all are equal.
    """
    frequencies = np.full(len(rows), 1 / len(rows)) if weights is None else weights
    needed = 0.0
    for other in others:
        gain = square = moves = 0.0
        for p, q, weight in zip(rows, other, frequencies, strict=True):
            possible = p > 0
            with np.errstate(divide="ignore"):
                ratio = np.log(p[possible]) - np.log(q[possible])
            gain += weight * float((p[possible] * ratio).sum())
            square += weight * float((p[possible] * ratio**2).sum())
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
