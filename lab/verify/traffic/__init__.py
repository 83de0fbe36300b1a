"""Plan the requests that test an upstream's method; convert their records to hits."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from msgspec import structs

from ...errors import UndecidedError
from ...evidence.access_log import Hit
from ...nginxconf.methods import Varied
from ...nginxconf.model import Upstream
from ...nginxconf.request import Evaluator, Request
from ...nginxconf.routes import VARIABLE
from ...nginxconf.variables import Variables, compile_text
from ...verdict import Verdict
from ...verdict.needed import requests_for_pass
from ...word import Word
from . import entrances, templates, upstream_choice
from .assignments import Assignment, Definitions, assignments
from .request_values import header_name, with_header, with_variable, with_variables
from .template import Entry, Template

AT_ONCE = 6  # or twice as many as servers, up to
MOST_AT_ONCE = 24
SECONDS, SECONDS_TO_DRAW = 6.0, 20.0  # of traffic for one upstream
FEWEST, FEWEST_TO_CHOOSE, MOST = 20, 300, 10_000
MOST_THAT_LAST = 2_400  # as many as SECONDS_TO_DRAW have room for
MOST_PARTS = 3  # of a trial
PROBES_BY_CHANCE = 8  # for one hit that is expected
VISITORS = 40
ROUTE = "lab_route"  # the cookie in which hits have their route
MOST_VALUES = 20  # ways to give a variable of `sticky route` its value
MOST_KEYS = 40  # of those that a map has
MOST_LINES = 300  # of all maps: more take too long to be followed backwards
MARK = "0a1b2c3d"  # stands for the key of a request
KEYS = 400  # as many different values a key takes
ADDRESSES = {
    *("remote_addr", "binary_remote_addr", "proxy_add_x_forwarded_for", "proxy_protocol_addr")
}
FIXED = {"host", "http_host", "request_method", "scheme", "server_port", "server_name"}


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request to send; `request.client_ip` is its source address."""

    id: str
    request: Request
    session: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests, their concurrency (1: strictly sequential), and the longest duration."""

    requests: tuple[PlannedRequest, ...]
    concurrency: int
    seconds: float = SECONDS


@dataclass(frozen=True, slots=True)
class Trial:
    """How to send: `concurrency` 1 is sequential; with `traced` nginx's debug log is evidence.

    A later `part` sends `count` requests more; the first as many as a verdict usually needs.
    """

    concurrency: int
    traced: bool = False
    part: int = 1
    count: int = 0

    @property
    def name(self) -> str:
        """A short name, unique among the trials of one upstream."""
        later = f"p{self.part}-" if self.part > 1 else ""
        return f"{later}{self.concurrency}{'t' if self.traced else ''}"

    def next_part(self, count: int) -> "Trial":
        """The same trial with `count` requests more."""
        return replace(self, part=self.part + 1, count=count)


def trials(upstream: Upstream, *, traced: bool) -> Iterator[Trial]:
    """What to try in turn until a PASS: with nginx's debug log first, then with less load."""
    concurrencies = at_once(upstream)
    if traced and by_load(upstream):
        yield Trial(concurrencies[0], traced=True)
    yield from (Trial(concurrency) for concurrency in concurrencies)


def continued(trial: Trial, verdict: Verdict) -> Trial | None:
    """The part that would decide an UNSURE by more requests; None if there is no such part."""
    undecided = verdict.word == Word.UNSURE and 0 < verdict.needed <= MOST
    if not undecided or trial.part == MOST_PARTS:
        return None
    return trial.next_part(verdict.needed - verdict.hits)


def at_once(upstream: Upstream) -> tuple[int, ...]:
    """The concurrencies to try: 1 unless the load decides; then a second, lower one."""
    if not by_load(upstream):
        return (1,)
    most = min(max(AT_ONCE, 2 * len(upstream.servers)), MOST_AT_ONCE)
    room = [server.max_conns for server in upstream.servers if not server.backup]
    most = min(most, sum(room)) if all(room) else most
    return (most, max(2, most // 2)) if most > 1 else (1,)


def method_traffic(
    upstream: Upstream, template: Template, conf: Variables, seed: int, trial: Trial
) -> Traffic:
    """The requests that test an upstream's method; the same seed gives the same requests."""
    rng = random.Random(f"{seed} {upstream.name} {trial.name}")
    loaded = takes_time(upstream)
    vary = variation(upstream, template, conf)
    count = trial.count or how_many(upstream, traced=trial.traced)
    # perhaps only a part of them arrives
    per_hit = upstream_choice.requests_per_hit(template, conf)
    count *= per_hit
    # every request differs from those of the parts before
    first = 1 + MOST * upstream_choice.MOST_CHANCES * (trial.part - 1)
    requests = tuple(
        PlannedRequest(
            f"{upstream.name}-{trial.name}-{number}",
            lasting(vary(number, rng), upstream, rng, trial) if loaded else vary(number, rng),
            f"visitor-{rng.randrange(VISITORS)}" if upstream.sticky else "",
        )
        for number in range(first, first + count)
    )
    longer = draws_by_load(upstream) or per_hit > upstream_choice.FEWEST_CHANCES
    return Traffic(requests, trial.concurrency, SECONDS_TO_DRAW if longer else SECONDS)


def plain_traffic(
    upstream: Upstream, template: Template, conf: Variables, seed: int, count: int, first: int = 1
) -> Traffic:
    """`count` sequential requests with varied keys and no delay; more where chance decides.

    `first` is the first one's number: a cache may have the response of a number that was sent.
    """
    rng = random.Random(f"{seed} {upstream.name} plain")
    vary = variation(upstream, template, conf)
    numbers = range(first, first + count * upstream_choice.requests_per_hit(template, conf))
    return Traffic(
        tuple(PlannedRequest(f"plain-{number}", vary(number, rng)) for number in numbers), 1
    )


def by_load(upstream: Upstream) -> bool:
    """Whether only concurrent requests test the method."""
    needs_overlap = upstream.record.by_load and not upstream.record.by_time
    return needs_overlap and several(upstream) and upstream.sticky is None


def takes_time(upstream: Upstream) -> bool:
    """Whether responses must take time to test the method."""
    return by_load(upstream) or (upstream.record.by_time and several(upstream))


def several(upstream: Upstream) -> bool:
    """Whether there is more than one primary server."""
    return len([server for server in upstream.servers if not server.backup]) > 1


def probes(
    upstream: Upstream, template: Template, conf: Variables, first: int
) -> tuple[PlannedRequest, ...]:
    """The requests that test whether a template reaches the upstream: one unless chance decides."""
    per_hit = upstream_choice.requests_per_hit(template, conf)
    count = per_hit * PROBES_BY_CHANCE if per_hit > 1 else 1
    return tuple(probe(upstream, template, conf, number) for number in range(first, first + count))


def probe(upstream: Upstream, template: Template, conf: Variables, number: int) -> PlannedRequest:
    """The request that tests whether a template reaches the upstream.

    It has a key and a duration like the others, because least_time's first sample has a long
    effect.
    """
    request = variation(upstream, template, conf)(-number, random.Random(number))
    if takes_time(upstream):
        request = lasting(request, upstream, random.Random(number))
    return PlannedRequest(f"probe-{number}", request)


def how_many(upstream: Upstream, *, traced: bool = False) -> int:
    """The number of requests that a verdict needs."""
    if len(upstream.servers) < 2:
        return FEWEST
    needed = requests_for_pass(upstream, FEWEST_TO_CHOOSE)
    if (
        draws_by_load(upstream) and not traced
    ):  # without nginx's own order only a part of these can be told
        return min(MOST_THAT_LAST, int(needed / 0.7))
    return min(MOST, needed)


def draws_by_load(upstream: Upstream) -> bool:
    """Whether load decides between random draws, which needs the most requests."""
    return by_load(upstream) and upstream.record.by_draw


def variation(
    upstream: Upstream, template: Template, conf: Variables
) -> Callable[[int, random.Random], Request]:
    """A function that makes requests from a template, varying what the method reads."""
    names = sources([upstream.key], template, conf)
    limits = sources(limit_keys(template), template, conf)
    still = templates.keeps_route(template, conf)
    mapped = key_values(upstream, template, conf, still)

    def make(number: int, rng: random.Random) -> Request:
        number_of_key = rng.randrange(KEYS) if mapped else 0
        chosen = mapped[number_of_key % len(mapped)] if mapped else {}
        values = {name: text.replace(MARK, text_of(number_of_key)) for name, text in chosen.items()}
        request = with_variables(template.request, values) or template.request
        for name in sorted((names | limits) - chosen.keys()):
            key = rng.randrange(KEYS)
            others = (*other_hosts(request, template, name, key), *varied(request, name, key))
            request = next(filter(still, others), request)
        if upstream.record.varied is Varied.ADDRESSES or ADDRESSES & names:
            request = structs.replace(request, client_ip=address(template.entry, rng))
        elif ADDRESSES & limits:
            elsewhere = structs.replace(request, client_ip=address(template.entry, rng))
            request = elsewhere if still(elsewhere) else request
        request = routed(request, upstream, conf, rng)
        # every request differs, so that no cache answers it
        return with_variable(request, "arg_lab", str(number)) or request

    return make


def other_hosts(request: Request, template: Template, name: str, number: int) -> Iterator[Request]:
    """The request with another host, where every name of a domain chooses the same server."""
    host, colon, port = template.request.headers["Host"].partition(":")
    _, _, domain = host.partition(".")
    names = entrances.server_names(template.route.scopes[1])
    # by TLS, the client names the host of the template before it sends a request
    if name not in ("host", "http_host") or template.entry.tls:
        return
    if host == entrances.NOBODY or f"*.{domain}" in names:
        yield with_header(request, "Host", f"{text_of(number)}.{domain}{colon}{port}")


def key_values(
    upstream: Upstream, template: Template, conf: Variables, still: Callable[[Request], bool]
) -> tuple[Assignment, ...]:
    """Values of variables that give the key of a map its values; none without a map.

    One with MARK in it, of which a map makes the key MARK; else one for each key that it has.
    """
    names = {(match[1] or match[2]).lower() for match in VARIABLE.finditer(upstream.key)}
    blocks = [conf.definitions[name] for name in names if name in conf.definitions]
    lines = sum(len(block.block or ()) for block in conf.definitions.values())
    if not blocks or lines > MOST_LINES:
        return ()
    key = compile_text(upstream.key, replace(conf, route=template.route))

    def giving(text: str) -> Iterator[Assignment]:
        wanted = assignments(upstream.key, text, Definitions(conf.definitions))
        for values in islice(wanted, MOST_VALUES):
            changed = with_variables(template.request, values)
            with suppress(UndecidedError):
                if changed is not None and still(changed) and key(changed) == text.encode():
                    yield values

    results = dict.fromkeys(line.args[-1] for line in blocks[0].block or () if line.args)
    each = chain.from_iterable(islice(giving(text), 1) for text in islice(results, MOST_KEYS))
    return tuple(islice(giving(MARK), 1)) or tuple(each)


def text_of(number: int) -> str:
    """A text for a number, as long as MARK; near numbers have texts that differ in every digit."""
    return f"{number * 2654435761 % 2**32:08x}"


def limit_keys(template: Template) -> list[str]:
    """The keys by which nginx limits requests or connections on the template's route."""
    http = template.route.scopes[0]
    return [
        zone.args[0]
        for kind in ("limit_req", "limit_conn")
        for zone in http.all(f"{kind}_zone")
        if zone.args and templates.is_on(template.route, kind)
    ]


def varied(request: Request, name: str, number: int) -> Iterator[Request]:
    """The request with another value for a variable, the plainest first; none if none fits.

    A key that an `if` requires keeps its beginning: "Bearer sk-".
    """
    value = text_of(number)
    if name in FIXED or name in ADDRESSES:
        return
    if name in ("uri", "document_uri", "request_uri", "request"):
        path, mark, query = request.uri.partition("?")
        yield structs.replace(request, uri=f"{path.rstrip('/')}/{value}{mark}{query}")
        return
    header = header_name(name) if name.startswith("http_") else ""
    before = request.headers.get(header, "")
    if name == "remote_user" or (name == "http_authorization" and before.startswith("Basic")):
        user = templates.USERS[number % len(templates.USERS)]
        yield with_header(request, "Authorization", templates.authorization(user))
        return
    texts = [value]
    if name == "request_body":
        texts = [f'{{"model": "lab", "prompt": "{value}"}}']
    elif before:
        texts += [before[: -len(value)] + value, before + value]
    for text in texts:
        if (changed := with_variable(request, name, text)) is not None:
            yield changed


def sources(texts: Iterable[str], template: Template, conf: Variables) -> set[str]:
    """The variables of a request on which texts depend, through map, geo and set."""
    assigned = upstream_choice.sets_of(template.route.scopes[1])
    names: set[str] = set()
    waiting = list(texts)
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
                    *(arg for line in block.block or () for arg in line.args),
                ]
                names |= {"remote_addr"} if block.name == "geo" and len(block.args) == 1 else set()
            elif name in assigned:
                waiting += assigned[name]
            else:
                names.add(name)
    return names


def address(entry: Entry, rng: random.Random) -> str:
    """A random client address in 127.0.0.0/8, all of which are local; none for IPv6."""
    if ":" in entry.host:
        return ""
    return "127." + ".".join(str(rng.randrange(1, 255)) for _ in range(3))


def routed(request: Request, upstream: Upstream, conf: Variables, rng: random.Random) -> Request:
    """The request with a route for `sticky route`, as an application would set it."""
    if upstream.sticky is None or upstream.sticky.kind != "route":
        return request
    known = [server.route for server in upstream.servers if server.route]
    lookup = rng.choice(upstream.sticky.lookups).removeprefix("$").lower()
    if not known or rng.random() < 0.3:
        return request
    wanted = assignments(f"${lookup}", rng.choice(known), Definitions(conf.definitions))
    changed = (with_variables(request, values) for values in islice(wanted, MOST_VALUES))
    return next(filter(None, changed), request)


def claim(upstream: Upstream) -> Upstream:
    """The upstream as its hits show it: those of `sticky route` have the route in a cookie."""
    sticky = upstream.sticky
    if sticky is None or sticky.kind != "route":
        return upstream
    return replace(upstream, sticky=replace(sticky, lookups=(f"$cookie_{ROUTE}",)))


def with_route(hit: Hit, request: Request, lookups: Sequence[Evaluator]) -> Hit:
    """The hit with the first of these values that is not empty as the cookie of its `claim`."""
    sent = with_header(request, "Cookie", hit.http_cookie) if hit.http_cookie else request
    route = next((text for lookup in lookups if (text := lookup(sent))), b"")
    return structs.replace(hit, http_cookie=f"{ROUTE}={route.decode('utf-8', 'surrogateescape')}")


def lasting(
    request: Request, upstream: Upstream, rng: random.Random, trial: Trial = Trial(1)
) -> Request:
    """The request with a response that takes 5 ms to 0.4 s, mostly short; a tenth if traced.

    For least_time each stub backend has a fixed response time and requests are sequential: only
    nginx's own clock has the averages precisely enough to judge concurrent picks.
    """
    took = min(0.4, 0.005 + rng.expovariate(1 / 0.06))
    seconds = f"{took / 10 if trial.traced else took:.4f}"
    seconds = "own" if upstream.record.by_time else seconds
    asked = with_variable(request, "arg_lab_lasts", seconds) or request
    # a proxy_pass that drops the query may keep headers, and the other way round
    return with_header(asked, "X-Lab-Duration", seconds)


# --- to the client and back ---------------------------------------------------------------


def plan(template: Template, sent: Traffic, *, until_served: bool = False) -> dict[str, Any]:
    """The client's plan as plain values."""
    entry = template.entry
    return {
        "host": entry.host,
        "port": entry.port,
        "tls": entry.tls,
        "proxy_protocol": entry.proxy_protocol,
        "name": template.request.headers["Host"].partition(":")[0],
        "concurrency": sent.concurrency,
        "seconds": sent.seconds,
        "until_served": until_served,
        "requests": [written(planned, entry) for planned in sent.requests],
    }


def written(planned: PlannedRequest, entry: Entry) -> dict[str, Any]:
    """One request as plain values."""
    request = planned.request
    return {
        "id": planned.id,
        "source": "" if ":" in entry.host else request.client_ip,
        "method": request.method,
        "target": request.uri,
        "headers": list(request.headers.items()),
        "body": request.body.decode("latin-1"),
        "session": planned.session,
    }


def hits(
    upstream: Upstream,
    template: Template,
    conf: Variables,
    sent: Sequence[PlannedRequest],
    records: Sequence[Mapping[str, Any]],
    servers: Mapping[str, str],
) -> Iterator[Hit]:
    """The hits of requests that reached the upstream, in the order of their responses.

    `servers` holds the `server` text behind each stub backend.
    """
    requests = {planned.id: planned for planned in sent}
    key = compile_text(upstream.key, replace(conf, route=template.route)) if upstream.key else None
    by_route = upstream.sticky is not None and upstream.sticky.kind == "route"
    names = upstream.sticky.lookups if upstream.sticky and by_route else ()
    lookups = [compile_text(name, replace(conf, route=template.route)) for name in names]
    limited = any(server.max_conns for server in upstream.servers)
    for record in uncached(records):
        server = servers.get(record.get("server", ""))
        if server is None and limited and record["status"] == 502:
            server = upstream.name  # every server was full: nginx names the upstream itself
        if server is not None and "done" in record:
            request = requests[record["id"]].request
            made = hit(request, record, server, key, template.entry)
            yield with_route(made, request, lookups) if by_route else made


def uncached(records: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The records without responses that nginx served from its cache."""
    seen: set[tuple[str, float]] = set()
    for record in records:
        answer = record.get("server", ""), record.get("received", 0.0)
        if not answer[0] or answer not in seen:
            yield record
        seen.add(answer)


def hit(
    request: Request, record: Mapping[str, Any], server: str, key: Evaluator | None, entry: Entry
) -> Hit:
    """One record as nginx would have logged it, from the client's and the stub's clocks."""
    took = max(record["answered"] - record["received"], 0.0)
    logged = structs.replace(request, client_ip=as_seen(request.client_ip, entry))
    return Hit(
        upstream_addr=(server,),
        status=record["status"],
        msec=record["done"],
        request_time=record["done"] - record["sent"],
        request_id=record["id"],
        remote_addr=logged.client_ip,
        request_method=request.method,
        request_uri=request.uri,
        hash_key=key(logged).decode("utf-8", "surrogateescape") if key else "",
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
