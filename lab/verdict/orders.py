"""Judge each pick by the claim, in nginx's own order of picks and releases."""

import numpy as np

from ..evidence.trace import PICK
from ..word import Word
from .alternatives.conclusion import conclude, failed
from .alternatives.likelihoods import likelihoods, order_of
from .case import Case, Verdict, column_of, shortened
from .chance import groups
from .chance.bounds import Bounds
from .replay import ordered


def traced(case: Case) -> bool:
    """Whether the order of the picks is known and can decide this claim."""
    return case.order is not None and not ordered.undecidable(case.upstream, case.addresses)


def by_order(case: Case, *, named: bool = True) -> Verdict:
    """Compare every pick with the claim's probabilities after the events before it."""
    claim = likelihoods(case.upstream, case)
    impossible = claim.contradictions()
    if len(impossible):
        why = contradiction(case, claim, int(impossible[0]), len(impossible))
        return failed(case, why, int(impossible[0])) if named else case.says(Word.FAIL, why)
    if why := miscounted(case, claim):
        return failed(case, why) if named else case.says(Word.FAIL, why)
    decided = float(claim.known.mean()) if claim.number else 0.0
    how = "exact" if bool((claim.high.max(axis=1) > 1 - 1e-9).all()) else "as drawn"
    why = f"{how} over {len(case.hits):,} hits, in nginx's own order"
    if decided < 1:
        why += f", {decided:.1%} of picks decided"
    return conclude(case, case.says(Word.PASS, why, decided=decided), named=named)


def contradiction(case: Case, claim: Bounds, row: int, number: int) -> str:
    """Name the request that contradicts the claim, its server, and the expected servers."""
    names = [*column_of(case), ""]
    short_names = [shortened(case.upstream).get(name, "no live upstreams") for name in names]
    steps = [step for step in order_of(case, row + 1) or () if step.kind == PICK]
    numbers = {hit.request_id: at for at, hit in enumerate(case.hits, 1)}
    request = steps[row].request_id
    allowed = [short_names[column] for column in np.flatnonzero(claim.high[row] > 0)]
    more = f", and {number - 1:,} more picks" if number > 1 else ""
    return (
        f"request {numbers.get(request, row + 1):,} (id {request}) went to"
        f" {short_names[claim.seen[row]]}, expected {' or '.join(allowed)}{more}"
    )


def miscounted(case: Case, claim: Bounds) -> str:
    """Name a group of draws that deviates from its probabilities; empty if there is none."""
    if not case.upstream.record.by_draw:
        return ""
    columns = column_of(case)
    names = [shortened(case.upstream)[name] for name in columns]
    loads = None if case.order is None else groups.loads_of(case.order, columns)
    return groups.off_odds(claim, names, loads)
