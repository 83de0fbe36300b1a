"""Judge by key: a key's server does not depend on overlapping requests."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from msgspec import structs

from ...evidence.access_log import Hit
from ...oracle import Arrival, predict
from ...oracle.base import Peer, group_of
from ...word import Word
from .. import replay
from ..case import Case, Verdict, difference
from .exact import unreadable
from .turns import counted


def by_key(case: Case) -> Verdict:
    """Compare each request with its key's server, which does not depend on overlapping requests."""
    upstream = case.upstream
    arrivals = [replay.arrival(upstream, hit, lasting=False) for hit in case.hits]
    has_key = bool(upstream.record.key)
    if has_key and not any(arrival.key for arrival in arrivals):
        return counted(case)
    plain = (structs.replace(arrival, faults=()) for arrival in arrivals)
    picks = predict(upstream, plain, case.addresses)
    outages, excused = failures(case), 0
    for number, (arrival, pick) in enumerate(zip(arrivals, picks, strict=True)):
        seen = replay.seen(upstream, case.hits[number])
        takes_turns = has_key and not arrival.key
        if takes_turns or seen == (pick.server, pick.attempts):
            continue
        if not explained_by_outages(case, number, arrival, outages):
            return case.says(Word.FAIL, difference(case, number, pick))
        excused += 1
    excuse = (
        f", {excused:,} of them around servers that failed or were at max_conns" if excused else ""
    )
    return case.says(Word.PASS, f"exact over {len(case.hits):,} hits{excuse}")


def explained_by_outages(
    case: Case, number: int, arrival: Arrival, outages: Sequence[tuple[str, float, float]]
) -> bool:
    """Whether all servers that precede the picked ones for this key may have been ineligible."""
    seen = replay.seen(case.upstream, case.hits[number])
    live = {server.name for server in case.upstream.servers if not (server.down or server.drain)}
    suspects = {server.name for server in case.upstream.servers if server.max_conns}
    suspects |= maybe_banned_during(outages, case.hits[number])
    if not suspects:
        return False
    chain = preference(case, arrival)
    for name in seen.attempts:
        if name not in chain or not set(chain[: chain.index(name)]) <= suspects:
            return False
        suspects.add(name)
    return seen.server is not None or live <= suspects


def preference(case: Case, arrival: Arrival) -> tuple[str, ...]:
    """The servers in the order of preference of a key."""
    failing = {server.name: "refused" for server in case.upstream.servers}
    rules = replace(case.upstream.next_upstream, conditions=frozenset({"error"}), tries=0)
    claim = replace(case.upstream, next_upstream=replace(rules, timeout=0.0))
    (pick,) = predict(claim, [structs.replace(arrival, fail=failing, faults=())], case.addresses)
    return pick.attempts


def failures(case: Case) -> list[tuple[str, float, float]]:
    """Each failed server, with the time span in which it may be banned for that, in seconds."""
    bans = {server.name: server.fail_timeout + 2 for server in case.upstream.servers}
    return [
        (name, replay.start(hit) - 1, hit.msec + bans[name])
        for hit in case.hits
        for index, name in enumerate(replay.seen(case.upstream, hit).attempts)
        if replay.fault(case.upstream, hit, index)
    ]


def maybe_banned_during(outages: Sequence[tuple[str, float, float]], hit: Hit) -> set[str]:
    """The servers that may have been banned while a request was served."""
    begun = replay.start(hit)
    return {name for name, first, last in outages if first <= hit.msec and begun <= last}


def sticky_requests(case: Case) -> Verdict:
    """Compare only the requests that sticky binds; the order of the others is unknown."""
    if reason := unreadable(case.upstream.sticky):
        return case.says(Word.UNSURE, reason)
    bound, outages = 0, failures(case)
    for number, hit, peer in bound_requests(case):
        bound += 1
        seen = replay.seen(case.upstream, hit)
        may_be_ineligible = peer.max_conns or peer.name in maybe_banned_during(outages, hit)
        if seen.attempts[:1] != (peer.name,) and not may_be_ineligible:
            return case.says(Word.FAIL, difference(case, number, peer.alone))
    if not bound:
        return case.says(
            Word.UNSURE, "no request was bound to a server", f"lab run {case.label} -c 1"
        )
    return case.says(Word.PASS, f"all {bound:,} bound requests of {len(case.hits):,} hits exact")


def bound_requests(case: Case) -> Iterator[tuple[int, Hit, Peer]]:
    """The requests that sticky binds to a server, each with its number and its server."""
    peers = group_of(case.upstream, case.addresses).by_sid
    for number, hit in enumerate(case.hits):
        peer = peers.get(replay.sticky_of(case.upstream, hit))
        if peer is not None and (peer.server.drain or not peer.out):
            yield number, hit, peer


def shows_cookie_of_nginx(case: Case) -> bool:
    """Whether a request has a cookie that only an nginx with `sticky cookie` sets."""
    sticky = case.upstream.sticky
    return sticky is not None and sticky.kind == "cookie" and any(bound_requests(case))
