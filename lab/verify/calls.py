"""The calls that make an upstream's method show itself, and the hits that they come to."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..evidence.access_log import Hit
from ..nginxconf.methods import Varied
from ..nginxconf.model import Upstream
from ..nginxconf.request import Evaluator, Request
from ..nginxconf.routes import VARIABLE, everything
from ..nginxconf.variables import Variables, compile_text
from ..oracle.base import group_of
from ..verdict.needed import requests_for_pass
from . import reach
from .reach import Entry, Way

AT_ONCE = 6  # or twice as many as servers, up to
MOST_AT_ONCE = 24
SECONDS, SECONDS_TO_DRAW = 6.0, 20.0  # of traffic for one upstream
FEWEST, FEWEST_TO_CHOOSE, MOST = 20, 300, 10_000
MOST_THAT_LAST = 2_400  # as many as SECONDS_TO_DRAW have room for
VISITORS = 40
KEYS = 400  # as many different values a key takes
ADDRESSES = {"remote_addr", "binary_remote_addr", "proxy_add_x_forwarded_for"}
FIXED = {"host", "http_host", "request_method", "scheme", "server_port", "server_name"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way: `request.client_ip` is where it comes from."""

    id: str
    request: Request
    session: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls, how many go at a time (1: strictly one after the other), and for how long at most."""

    calls: tuple[Call, ...]
    concurrency: int
    seconds: float = SECONDS


def at_once(upstream: Upstream) -> tuple[int, ...]:
    """How many calls go at a time; where overlap is the point, fewer where that told too little."""
    if not by_load(upstream):
        return (1,)
    most = min(max(AT_ONCE, 2 * len(upstream.servers)), MOST_AT_ONCE)
    room = [server.max_conns for server in upstream.servers if not server.backup]
    most = min(most, sum(room)) if all(room) else most
    return (most, max(2, most // 2)) if most > 1 else (1,)


def traffic(upstream: Upstream, way: Way, conf: Variables, seed: int, at_once: int) -> Traffic:
    """The calls that an upstream's method needs, along one way; the same for the same seed."""
    rng = random.Random(f"{seed} {upstream.name} {at_once}")
    loaded = takes_time(upstream)
    vary = variation(upstream, way, conf)
    calls = tuple(
        Call(
            f"{upstream.name}-{number}",
            lasting(vary(number, rng), upstream, rng) if loaded else vary(number, rng),
            f"visitor-{rng.randrange(VISITORS)}" if upstream.sticky else "",
        )
        for number in range(1, how_many(upstream) + 1)
    )
    return Traffic(calls, at_once, SECONDS_TO_DRAW if draws_by_load(upstream) else SECONDS)


def plain(upstream: Upstream, way: Way, conf: Variables, seed: int, count: int) -> Traffic:
    """So many calls along one way, one after the other, with varied keys and no duration."""
    rng = random.Random(f"{seed} {upstream.name} plain")
    vary = variation(upstream, way, conf)
    numbers = range(1, count + 1)
    return Traffic(tuple(Call(f"plain-{number}", vary(number, rng)) for number in numbers), 1)


def by_load(upstream: Upstream) -> bool:
    """Whether only requests that overlap show the method."""
    needs_overlap = upstream.record.by_load and not upstream.record.by_time
    return needs_overlap and several(upstream) and upstream.sticky is None


def takes_time(upstream: Upstream) -> bool:
    """Whether answers have to take time to show the method."""
    return by_load(upstream) or (upstream.record.by_time and several(upstream))


def several(upstream: Upstream) -> bool:
    """Whether there is anything to choose from."""
    return len([server for server in upstream.servers if not server.backup]) > 1


def probe(upstream: Upstream, way: Way, conf: Variables, number: int) -> Call:
    """The call that finds out whether a way is open.

    It has a key and lasts as the others do: the first time that least_time sees counts for long.
    """
    request = variation(upstream, way, conf)(0, random.Random(number))
    if takes_time(upstream):
        request = lasting(request, upstream, random.Random(number))
    return Call(f"probe-{number}", request)


def how_many(upstream: Upstream) -> int:
    """The number of calls that a verdict needs."""
    group = group_of(upstream, {})
    if len(group.peers) < 2:
        return FEWEST
    needed = requests_for_pass(upstream, FEWEST_TO_CHOOSE)
    if draws_by_load(upstream):  # without nginx's own order only a part of these can be told
        return min(MOST_THAT_LAST, int(needed / 0.7))
    return min(MOST, needed)


def draws_by_load(upstream: Upstream) -> bool:
    """Whether picks are drawn and the load decides between draws: these take the most requests."""
    return by_load(upstream) and upstream.record.by_draw


def variation(
    upstream: Upstream, way: Way, conf: Variables
) -> Callable[[int, random.Random], Request]:
    """A maker of requests along a way: each with values of its own for what the method reads."""
    names = sorted(sources(upstream, way, conf))
    still = reach.stays(way, conf)

    def make(number: int, rng: random.Random) -> Request:
        request = way.request
        for name in names:
            changed = varied(request, name, rng.randrange(KEYS))
            if changed is not None and still(changed):
                request = changed
        if upstream.record.varied is Varied.ADDRESSES or ADDRESSES & set(names):
            request = replace(request, client_ip=address(way.entry, rng))
        request = routed(request, upstream, rng)
        # no two requests are alike, so that no cache answers for the upstream
        return reach.given(request, "arg_lab", str(number)) or request

    return make


def varied(request: Request, name: str, number: int) -> Request | None:
    """The request with another value for a variable; None where none fits."""
    value = f"{number * 2654435761 % 2**32:08x}"
    if name in FIXED or name in ADDRESSES:
        return None
    if name in ("uri", "document_uri", "request_uri", "request"):
        path, mark, query = request.uri.partition("?")
        return replace(request, uri=f"{path.rstrip('/')}/{value}{mark}{query}")
    if name == "http_authorization" and "Authorization" in request.headers:
        return None
    if name == "request_body":
        return reach.given(request, name, f'{{"model": "lab", "prompt": "{value}"}}')
    return reach.given(request, name, value)


def sources(upstream: Upstream, way: Way, conf: Variables) -> set[str]:
    """The variables of a request on which the hash key depends, through map, geo and set."""
    given = {
        line.args[0].removeprefix("$").lower(): line.args[1]
        for line in everything(way.route.scopes[1])
        if line.name == "set" and len(line.args) == 2
    }
    found: set[str] = set()
    waiting = [upstream.key]
    seen: set[str] = set()
    while waiting:
        for match in VARIABLE.finditer(waiting.pop()):
            name = (match[1] or match[2]).lower()
            if name in seen:
                continue
            seen.add(name)
            block = conf.definitions.get(name)
            if block is not None:
                waiting += [
                    *block.args[:-1],
                    *(it for line in block.block or () for it in line.args),
                ]
                found |= {"remote_addr"} if block.name == "geo" and len(block.args) == 1 else set()
            elif name in given:
                waiting.append(given[name])
            else:
                found.add(name)
    return found


def address(entry: Entry, rng: random.Random) -> str:
    """A client address: every one of 127.0.0.0/8 is the machine's own; IPv6 has one alone."""
    if ":" in entry.host:
        return ""
    return "127." + ".".join(str(rng.randrange(1, 255)) for _ in range(3))


def routed(request: Request, upstream: Upstream, rng: random.Random) -> Request:
    """The request with a route for `sticky route`, as its application would hand it out."""
    if upstream.sticky is None or upstream.sticky.kind != "route":
        return request
    known = [server.route for server in upstream.servers if server.route]
    lookup = rng.choice(upstream.sticky.lookups).removeprefix("$").lower()
    if not known or rng.random() < 0.3:
        return request
    return reach.given(request, lookup, rng.choice(known)) or request


def lasting(request: Request, upstream: Upstream, rng: random.Random) -> Request:
    """The request with an answer that takes 5 ms to 0.4 s, most of them short.

    For least_time each stand-in has a pace of its own, one request after the other: no clock but
    nginx's can tell the times that it remembers so well that overlapping picks could be judged.
    """
    seconds = f"{min(0.4, 0.005 + rng.expovariate(1 / 0.06)):.3f}"
    seconds = "own" if upstream.record.by_time else seconds
    asked = reach.given(request, "arg_lab_lasts", seconds) or request
    # a proxy_pass that drops the query may keep headers, and the other way round
    return reach.headed(asked, "X-Lab-Duration", seconds)


# --- to the caller and back ---------------------------------------------------------------


def plan(way: Way, sent: Traffic, *, until_served: bool = False) -> dict[str, Any]:
    """What the caller is to do, as plain values."""
    entry = way.entry
    return {
        "host": entry.host,
        "port": entry.port,
        "tls": entry.tls,
        "proxy_protocol": entry.proxy_protocol,
        "name": way.request.headers["Host"].partition(":")[0],
        "concurrency": sent.concurrency,
        "seconds": sent.seconds,
        "until_served": until_served,
        "calls": [written(call, entry) for call in sent.calls],
    }


def written(call: Call, entry: Entry) -> dict[str, Any]:
    """One call as plain values."""
    request = call.request
    return {
        "id": call.id,
        "source": "" if ":" in entry.host else request.client_ip,
        "method": request.method,
        "target": request.uri,
        "headers": list(request.headers.items()),
        "body": request.body.decode("latin-1"),
        "session": call.session,
    }


def hits(
    upstream: Upstream,
    way: Way,
    conf: Variables,
    sent: Sequence[Call],
    records: Sequence[Mapping[str, Any]],
    servers: Mapping[str, str],
) -> Iterator[Hit]:
    """The hits of calls that reached the upstream, in the order of their answers.

    `servers` holds the `server` text behind each stand-in.
    """
    calls = {call.id: call for call in sent}
    key = compile_text(upstream.key, replace(conf, route=way.route)) if upstream.key else None
    limited = any(server.max_conns for server in upstream.servers)
    for record in uncached(records):
        server = servers.get(record.get("server", ""))
        if server is None and limited and record["status"] == 502:
            server = upstream.name  # every server was full: nginx names the upstream itself
        if server is not None and "done" in record:
            yield hit(calls[record["id"]].request, record, server, key, way.entry)


def uncached(records: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The records without the answers that nginx gave a second time, from its cache."""
    seen: set[tuple[str, float]] = set()
    for record in records:
        answer = record.get("server", ""), record.get("received", 0.0)
        if not answer[0] or answer not in seen:
            yield record
        seen.add(answer)


def hit(
    request: Request, record: Mapping[str, Any], server: str, key: Evaluator | None, entry: Entry
) -> Hit:
    """One record as nginx would have logged it, by the clocks of the caller and the stand-in."""
    took = max(record["answered"] - record["received"], 0.0)
    seen = replace(request, client_ip=as_seen(request.client_ip, entry))
    return Hit(
        upstream_addr=(server,),
        status=record["status"],
        msec=record["done"],
        request_time=record["done"] - record["sent"],
        request_id=record["id"],
        remote_addr=seen.client_ip,
        request_method=request.method,
        request_uri=request.uri,
        hash_key=key(seen).decode("utf-8", "surrogateescape") if key else "",
        http_cookie=record["cookie"],
        pid=1,
        upstream_status=(record["status"],),
        upstream_connect_time=(0.0,),
        upstream_header_time=(took,),
        upstream_response_time=(took,),
    )


def as_seen(address: str, entry: Entry) -> str:
    """A client's address as nginx sees it through this entry."""
    if ":" in entry.host:
        return "::1"
    return f"::ffff:{address}" if entry.mapped else address
