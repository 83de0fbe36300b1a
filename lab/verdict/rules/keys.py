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

SHOWN_BYTES = 40  # of a key


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


def first_wrong_key(case: Case) -> str:
    """Name the first request whose logged key is not the one that was sent; empty if none."""
    keys = (case.keys or {}) if case.upstream.record.key else {}
    for number, hit in enumerate(case.hits):
        logged = replay.key_of(case.upstream, hit)
        sent = keys.get(hit.request_id, logged)
        if logged != sent:
            name = f"request {number + 1:,} (id {hit.request_id})"
            return f"{name} has the key {quoted(logged)} in nginx's log, expected {quoted(sent)}"
    return ""


def quoted(key: bytes) -> str:
    """A key as text, with its length in bytes; a long one only in part."""
    text = key[:SHOWN_BYTES].decode("utf-8", "backslashreplace")
    more = "…" if len(key) > SHOWN_BYTES else ""
    return f'"{text}{more}" ({len(key):,} bytes)'


def with_source_of_keys(case: Case, verdict: Verdict) -> Verdict:
    """The verdict; a PASS says so if a key is known only from nginx's own log."""
    if verdict.word != Word.PASS or case.keys is None or not case.upstream.record.key:
        return verdict
    keys = case.keys
    if not replay.is_logged_key(case.upstream) or all(hit.request_id in keys for hit in case.hits):
        return verdict
    return replace(verdict, why=f"{verdict.why}; by the keys that nginx itself logged")
