"""Find requests that nginx sends through one `proxy_pass`: listener, host, location."""

import base64
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from itertools import chain, compress, islice, product
from types import MappingProxyType

from msgspec import structs

from ...errors import UndecidedError, UsageError
from ...nginxconf.maps import pattern
from ...nginxconf.request import FRAMING, Request, normal, target
from ...nginxconf.routes import (
    EVERY_IPV4,
    VARIABLE,
    Listen,
    Route,
    authority,
    effective,
    everything,
    listens,
)
from ...nginxconf.tree import Directive
from ...nginxconf.variables import Variables, compile_text, conditions
from .assignments import Assignment, Definitions, assignments
from .sample import NO_GROUPS, sample, sampled

NO_BLOCKS: Mapping[str, Directive] = MappingProxyType({})
MOST_CANDIDATES = 24  # requests that are tried out for one route
MOST_TESTS = 6  # `if`s that set parts of one variable
MOST_GUESSES = 300  # requests that are guessed where a variable decides
FEWEST_CHANCES, MOST_CHANCES = 4, 25  # for one request to arrive where chance decides
NOBODY = "nobody.invalid"  # a host that no server_name matches: the default server's
# an `if` that holds for requests without TLS
PLAIN = re.compile(r"\$scheme (= http|!= https)|\$https (=|!= on)|\$server_port (= 80|!= 443)")
GROUP_OR_VARIABLE = re.compile(rb"\$(?:\{(\w+)\}|([0-9]|\w+))")
LOGIN = "lab", "lab"
CLIENTS = IPv4Network("127.0.0.0/8")  # their addresses, all of which are local
BODY = b'{"model": "lab", "messages": [{"role": "user", "content": "hello"}]}'


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a client connects: `mapped` says that nginx sees its IPv4 address as an IPv6 one."""

    host: str
    port: int
    tls: bool = False
    proxy_protocol: bool = False
    mapped: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A request that should take `route`, and the listener it is sent to."""

    route: Route
    entry: Entry
    request: Request


# --- the entrance -----------------------------------------------------------------------------


def entry(route: Route) -> Entry | None:
    """The simplest listener of the route's server; None if only unix sockets or QUIC are."""
    listen = chosen_listen(route)
    if listen is None:
        return None
    host, mapped = connectable(listen)
    return Entry(host, listen.port, is_tls(listen), "proxy_protocol" in listen.options, mapped)


def chosen_listen(route: Route) -> Listen | None:
    """The `listen` of that listener: with TLS only if the route needs it."""
    usable = [listen for listen in route.listen if listen.port and "quic" not in listen.options]
    needs_tls = asks_for_tls(route) or names_by_https(route)
    return min(
        usable,
        key=lambda listen: (
            is_tls(listen) != needs_tls,
            ":" in listen.address,
            "proxy_protocol" in listen.options,
        ),
        default=None,
    )


def names_by_https(route: Route) -> bool:
    """Whether the route's `proxy_pass` names its upstream where $scheme is https."""
    return next(upstream_named(route), NO_GROUPS).get("scheme") == "https"


def asks_for_tls(route: Route) -> bool:
    """Whether an `if` on the route redirects requests without TLS."""
    conditions = [test for scope in route.scopes for test in scope.all("if")]
    return any(
        PLAIN.fullmatch(" ".join(test.args).strip("() "))
        and (test.all("return") or test.all("rewrite"))
        for test in conditions
    )


def is_tls(listen: Listen) -> bool:
    """Whether a `listen` uses TLS."""
    return "ssl" in listen.options


def connectable(listen: Listen) -> tuple[str, bool]:
    """An address at which a client on the same machine reaches a `listen`."""
    address = listen.address.strip("[]")
    if address in ("*", EVERY_IPV4, "localhost"):
        return "127.0.0.1", False
    if address == "::":
        both = "ipv6only=off" in listen.options
        return ("127.0.0.1", True) if both else ("::1", False)
    return address, False


# --- the host -----------------------------------------------------------------------------


def hosts(route: Route, captures: Assignment = NO_GROUPS) -> Iterator[str]:
    """Host headers that should choose the route's server, the likeliest first."""
    names = [name for line in route.scopes[1].all("server_name") for name in line.args]
    for name in names:
        if host := host_of(name, captures):
            yield host
    if not names or not all(map(host_of, names)) or is_default(route):
        yield NOBODY


def host_of(name: str, captures: Mapping[str, str] = NO_GROUPS) -> str:
    """A host that one word of `server_name` matches; empty if there is none."""
    if name.startswith("~"):
        return sampled(name[1:], captures, ignore_case=True)
    if name.startswith("*."):
        return f"lab{name[1:]}"
    if name.endswith(".*"):
        return f"{name[:-1]}lab"
    return "" if name == "_" or "$" in name else name.removeprefix(".")


def earlier_namesake(route: Route, servers: Iterable[Directive]) -> Directive | None:
    """The `server` because of which nginx ignores the names of the route's own; else None."""
    own = route.scopes[1]
    if is_default(route):
        return None
    for server in servers:
        if server is own:
            return None
        if server_names(own) <= server_names(server) and places(own) <= places(server):
            return server
    return None


def is_default(route: Route) -> bool:
    """Whether the route's server also answers requests for hosts that no `server` names."""
    return any({"default_server", "default"} & set(listen.options) for listen in route.listen)


def server_names(server: Directive) -> set[str]:
    """The names of a `server` in lower case; nginx's default is the empty one."""
    return {name.lower() for line in server.all("server_name") for name in line.args} or {""}


def places(server: Directive) -> set[tuple[str, int]]:
    """The addresses and ports on which a `server` listens."""
    return {(listen.address.replace(EVERY_IPV4, "*"), listen.port) for listen in listens(server)}


# --- the location -------------------------------------------------------------------------


def location_of(scope: Directive, path: bytes) -> Directive | None:
    """The location that nginx selects for a path, nested ones included (ngx_http_core_module.c)."""
    return _location_of(scope, path)[0]


def _location_of(scope: Directive, path: bytes) -> tuple[Directive | None, bool]:
    """The location, and whether no regex of an outer block may replace it."""
    locations = [
        location for location in scope.all("location") if not words(location).startswith("@")
    ]
    for location in locations:
        if words(location).startswith("=") and encoded(words(location)[1:]) == path:
            return location, True
    prefixes = [location for location in locations if path.startswith(prefix(location) or b"\n")]
    longest = max(prefixes, key=lambda location: len(prefix(location) or b""), default=None)
    best = longest
    if longest is not None:
        inner, final = _location_of(longest, path)
        best = inner or longest
        if final:
            return best, True
    if longest is None or not words(longest).startswith("^~"):
        for location in locations:
            if words(location).startswith("~") and regex(location).search(path):
                return _location_of(location, path)[0] or location, True
    return best, False


def words(location: Directive) -> str:
    """The parameters of `location`, without spaces."""
    return "".join(location.args)


def prefix(location: Directive) -> bytes | None:
    """The prefix of a location; None for an exact, a named or a regex one."""
    text = words(location)
    return None if text.startswith(("=", "~", "@")) else encoded(text.removeprefix("^~"))


def regex(location: Directive) -> re.Pattern[bytes]:
    """The regex of a location."""
    text = words(location)
    bare = text.removeprefix("~").removeprefix("*")
    return pattern(bare, ignore_case=text.startswith("~*"), where=location.where)


def encoded(text: str) -> bytes:
    """The bytes of a config's text."""
    return text.encode("utf-8", "surrogateescape")


def innermost(route: Route) -> Directive | None:
    """The location around a route's `proxy_pass`."""
    return next((scope for scope in reversed(route.scopes) if scope.name == "location"), None)


def paths(route: Route, captures: Assignment = NO_GROUPS) -> Iterator[str]:
    """Paths for which nginx selects the route's location."""
    location = innermost(route)
    if location is None:
        yield "/"
        return
    if is_internal(route):
        yield from _paths_rewritten(location, route.scopes[1])
        return
    outer = [words(scope).removeprefix("^~") for scope in route.scopes if scope.name == "location"][
        :-1
    ]
    candidates = tuple(_paths(location, route.scopes[1], captures))
    for path in (
        *candidates,
        *(f"{start}lab{path.lstrip('/')}" for start in outer for path in candidates),
    ):
        if not path.startswith("/"):
            continue
        try:
            lands = location_of(route.scopes[1], normal(encoded(path), merge_slashes=True))
        except UsageError:
            continue
        if lands is location or words(location).startswith("@"):
            yield path.replace(" ", "%20")


def _paths(
    location: Directive, server: Directive, captures: Mapping[str, str] = NO_GROUPS
) -> Iterator[str]:
    text = words(location)
    if text.startswith("@"):
        yield from _paths_to_named(text, server)
    elif text.startswith("="):
        yield text[1:]
    elif text.startswith("~"):
        bare = text.lstrip("~").removeprefix("*")
        yield from _variants(sampled(bare, captures, ignore_case=text.startswith("~*")))
    else:
        bare = text.removeprefix("^~")
        yield from (bare, f"{bare}lab", f"{bare}/lab", f"{bare.rstrip('/')}/v1/chat/completions")


def _variants(text: str) -> tuple[str, ...]:
    """Paths that may match a regex which matches this text."""
    return text, f"/{text}", f"/lab{text}", f"/lab/{text}"


def _paths_to_named(name: str, server: Directive, passed: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths of locations from which nginx redirects to a named one, perhaps by another such."""
    if any(name in line.args for kind in ("try_files", "error_page") for line in server.all(kind)):
        yield "/lab-nothing"
    for location in server.all("location"):
        lines = (*location.all("try_files"), *location.all("error_page"))
        if not any(name in line.args for line in lines) or words(location) in passed:
            continue
        if words(location).startswith("@"):
            yield from _paths_to_named(words(location), server, (*passed, name))
        else:
            yield from (f"{path}lab-nothing" for path in _paths(location, server))


def _paths_rewritten(location: Directive, server: Directive) -> Iterator[str]:
    """Paths that a `rewrite` of the server or of another location leads to a location."""
    for scope in (server, *(block for block in everything(server) if block.name == "location")):
        for line in scope.all("rewrite"):
            if len(line.args) < 2 or line.args[2:] in (("break",), ("redirect",), ("permanent",)):
                continue
            for path in _variants(sample(line.args[0])):
                new = _rewritten(line, path)
                from_there = scope is server or location_of(server, encoded(path)) is scope
                if from_there and new and location_of(server, new) is location:
                    yield path.replace(" ", "%20")


def _rewritten(line: Directive, path: str) -> bytes:
    """The path after a `rewrite`; empty if it does not apply or has other variables."""
    match = pattern(line.args[0], ignore_case=False, where=line.where).search(encoded(path))
    if match is None:
        return b""
    groups = {"0": match[0], **{str(n): group or b"" for n, group in enumerate(match.groups(), 1)}}
    text = re.split(rb"[?]", encoded(line.args[1]), maxsplit=1)[0]
    names = [(found[1] or found[2]).decode() for found in GROUP_OR_VARIABLE.finditer(text)]
    if not groups.keys() >= set(names):
        return b""
    return GROUP_OR_VARIABLE.sub(lambda found: groups[(found[1] or found[2]).decode()], text)


# --- values for variables and conditions ------------------------------------------------


def with_variable(request: Request, name: str, value: str) -> Request | None:
    """The request with a value for one of nginx's variables; None if no client can set it."""
    if name.startswith("arg_"):
        path, _, query = request.uri.partition("?")
        return structs.replace(request, uri=f"{path}?{with_pair(query, '&', name[4:], value)}")
    if name.startswith("cookie_"):
        cookies = with_pair(request.headers.get("Cookie", ""), "; ", name[7:], value)
        return with_header(request, "Cookie", cookies)
    if name.startswith("http_") and name not in FRAMING:
        return with_header(request, header_name(name), value)
    if name in ("host", "content_type"):
        return with_header(request, {"host": "Host", "content_type": "Content-Type"}[name], value)
    if name == "request_method":
        return structs.replace(request, method=value, body=BODY if value == "POST" else b"")
    if name == "request_body":
        return structs.replace(request, method="POST", body=value.encode())
    if name in ("uri", "document_uri", "request_uri") and value.startswith("/"):
        return structs.replace(request, uri=value)
    if name in ("args", "query_string"):
        return structs.replace(request, uri=f"{request.uri.partition('?')[0]}?{value}")
    return None


def with_pair(pairs: str, separator: str, name: str, value: str) -> str:
    """Arguments or cookies with one of that name: nginx reads the first."""
    others = [pair for pair in pairs.split(separator) if pair]
    kept = [pair for pair in others if pair.partition("=")[0].lower() != name.lower()]
    return separator.join([*kept, f"{name}={value}"])


def header_name(name: str) -> str:
    """The header of a variable: "X-Api-Key" for "http_x_api_key"."""
    return "-".join(word.capitalize() for word in name.removeprefix("http_").split("_"))


def with_variables(request: Request, values: Assignment) -> Request | None:
    """The request with those of the values that a client can set; None if it can set none."""
    changed: Request | None = None
    for name, value in values.items():
        with_value = with_variable(request if changed is None else changed, name, value)
        changed = changed if with_value is None else with_value
    return changed


def with_header(request: Request, name: str, value: str) -> Request:
    """The request with a header."""
    return structs.replace(request, headers={**request.headers, name: value})


def satisfying(
    request: Request, condition: Directive, conf: Variables, captures: Assignment = NO_GROUPS
) -> Request | None:
    """The request changed so that an `if` holds, as far as can be told; None if no client can.

    `captures` are wanted texts of the captures of its regex.
    """
    test = test_of(condition)
    if test is None or test[1].startswith("!"):
        return request
    for text in values_for(*test, conf, captures):
        for values in assignments(f"${test[0]}", text, Definitions(conf.definitions)):
            if (changed := with_variables(request, values)) is not None:
                return changed
    return request if test[0] in conf.definitions else None


def values_for(
    name: str, sign: str, value: str, conf: Variables, captures: Assignment = NO_GROUPS
) -> list[str]:
    """Values of a variable for which a test holds; for a map those that it can have."""
    block = conf.definitions.get(name)
    if block is None:
        return [sampled(value, captures, ignore_case="*" in sign) if "~" in sign else value]
    results = [line.args[-1] for line in block.block or () if line.args]
    if "~" in sign:
        regex = pattern(value, ignore_case="*" in sign, where=block.where)
        return [result for result in results if regex.search(encoded(result))]
    return [value] if sign else [result for result in results if result not in ("", "0")]


def test_of(condition: Directive) -> tuple[str, str, str] | None:
    """The variable, the sign and the value of an `if`: a lone variable is to be "1"."""
    text = " ".join(condition.args).removeprefix("(").removesuffix(")").strip()
    match = re.fullmatch(r"\$(\w+)(?:\s*(!?=|!?~\*?)\s*(.*))?", text)
    if match is None:
        return None
    value = "1" if match[2] is None else match[3].strip("\"'")
    return match[1].lower(), match[2] or "", value


def avoiding(request: Request, condition: Directive, conf: Variables) -> Request:
    """The request changed so that an `if` that refuses does not hold, as far as can be told.

    This is how keys are asked for: by the header itself, or by a map of it.
    """
    test = test_of(condition)
    for values in contrary_assignments(*test, conf) if test else ():
        if (changed := with_variables(request, values)) is not None:
            return changed
    return request


def contrary_assignments(name: str, sign: str, value: str, conf: Variables) -> Iterator[Assignment]:
    """Values of variables for which a test does not hold."""
    block = conf.definitions.get(name)
    if sign.startswith("!"):
        values = [sample(value, ignore_case="*" in sign) if "~" in sign else value]
    elif block is not None:
        results = [line.args[-1] for line in block.block or () if line.args]
        values = [result for result in results if result != value] if sign else ["0", ""]
    else:
        values = ["lab"] if (sign, value) == ("=", "") else []
    for text in values:
        yield from assignments(f"${name}", text, Definitions(conf.definitions))


def allowed(request: Request, limit: Directive) -> Request:
    """The request by a method for which the block of `limit_except` holds."""
    method = next(
        (method for method in ("POST", "GET", "PUT") if method not in limit.args), "DELETE"
    )
    return structs.replace(request, method=method, body=BODY if method == "POST" else b"")


def selects_upstream(request: Request, route: Route, conf: Variables) -> bool:
    """Whether the route's `proxy_pass` sends this request to the route's upstream, or may do so."""
    return selection(request, route, conf) is not False


def selection(request: Request, route: Route, conf: Variables) -> bool | None:
    """Whether a request is sent to the route's upstream; None if the request does not decide."""
    if "$" not in route.proxy_pass:
        return True
    try:
        url = compile_text(route.proxy_pass, replace(conf, route=route))(request)
    except UndecidedError:
        return None
    except UsageError:
        return False
    return authority(url.decode("utf-8", "surrogateescape")).lower() == route.upstream.lower()


def by_chance(template: Template, conf: Variables) -> bool:
    """Whether something outside of the request decides if it reaches the upstream: $request_id."""
    return bool(undecided(template, conf))


def undecided(template: Template, conf: Variables) -> str:
    """Why the request does not decide whether it reaches the upstream; empty if it does."""
    url, route = template.route.proxy_pass, replace(conf, route=template.route)
    try:
        compile_text(url if "$" in url else "", route)(template.request)
    except UndecidedError as error:
        return error.message
    except UsageError:
        return ""
    return ""


def requests_per_hit(template: Template, conf: Variables) -> int:
    """How many requests to send for one that reaches the upstream; 1 unless chance decides."""
    if not by_chance(template, conf):
        return 1
    blocks = [block for block in conf.definitions.values() if block.name == "split_clients"]
    shares = [share for block in blocks for share in shares_of(block, template.route.upstream)]
    rarest = min(shares, default=100.0)
    return min(MOST_CHANCES, max(FEWEST_CHANCES, math.ceil(100 / max(rarest, 0.01))))


def shares_of(block: Directive, upstream: str) -> Iterator[float]:
    """The percentages of a `split_clients` that name an upstream."""
    rest = 100.0
    for line in block.block or ():
        percentage = rest if line.name == "*" else float(line.name.removesuffix("%"))
        rest -= percentage
        if line.args[-1:] == (upstream,):
            yield percentage


def matching_requests(request: Request, route: Route, conf: Variables) -> Iterator[Request]:
    """Variants of a request that the route's `proxy_pass` sends to its upstream."""
    selected = selection(request, route, conf)
    if selected:
        yield request
        return
    tried = [*_by_value(request, route, conf), *_by_set(request, route, conf)]
    if selected is None:
        # a header may decide in place of chance
        yield from (candidate for candidate in tried if selection(candidate, route, conf))
        yield request
        return
    tried += _guessed(request, route, conf)
    yield from (candidate for candidate in tried if selects_upstream(candidate, route, conf))


def _by_value(request: Request, route: Route, conf: Variables) -> Iterator[Request]:
    """Requests whose variables, through maps and sets, name the upstream."""
    for values in upstream_named(route, conf.definitions):
        if (changed := with_variables(request, values)) is not None:
            yield changed


def upstream_named(
    route: Route, blocks: Mapping[str, Directive] = NO_BLOCKS
) -> Iterator[Assignment]:
    """Values of variables with which a route's `proxy_pass` names its upstream.

    `blocks` are the maps by their variables.
    """
    known = Definitions(blocks, sets_of(route.scopes[1]))
    return assignments(route.proxy_pass, route.upstream, known, part=host_in)


def host_in(url: str) -> str:
    """The host and port of a URL whose scheme may be a variable."""
    _, separator, rest = url.rpartition("://")
    return authority(f"http{separator}{rest}")


def sets_of(server: Directive) -> dict[str, tuple[str, ...]]:
    """The texts that the `set` lines of a server give each variable."""
    texts: dict[str, tuple[str, ...]] = {}
    for line in everything(server):
        if line.name == "set" and len(line.args) == 2:
            name = line.args[0].removeprefix("$").lower()
            texts[name] = (*texts.get(name, ()), line.args[1])
    return texts


def _by_set(request: Request, route: Route, conf: Variables) -> Iterator[Request]:
    """Requests for which an `if` holds that sets a variable."""
    captures = next(upstream_named(route, conf.definitions), NO_GROUPS)
    for test in (test for scope in route.scopes for test in scope.all("if") if test.all("set")):
        if (changed := satisfying(request, test, conf, captures)) is not None:
            yield changed


def _guessed(request: Request, route: Route, conf: Variables) -> Iterator[Request]:
    """Requests from many addresses, with many values of what `split_clients` reads."""
    yield from (structs.replace(request, client_ip=address) for address in _geo_addresses(conf))
    rng = random.Random(route.where)
    texts = [block.args[0] for block in conf.definitions.values() if block.name == "split_clients"]
    names = [(match[1] or match[2]).lower() for match in VARIABLE.finditer(" ".join(texts))]
    chosen = [name for name in names if name.startswith(("arg_", "cookie_", "http_"))]
    for _ in range(MOST_GUESSES):
        address = ".".join(str(rng.randrange(1, 255)) for _ in range(3))
        guess = structs.replace(request, client_ip=f"127.{address}")
        for name in chosen:
            guess = with_variable(guess, name, f"{rng.randrange(2**32):08x}") or guess
        yield guess


def _geo_addresses(conf: Variables) -> Iterator[str]:
    """An address in each network of `geo` that the lab's clients can have."""
    blocks = (block for block in conf.definitions.values() if block.name == "geo")
    for line in (line for block in blocks for line in block.block or ()):
        try:
            network = IPv4Network(line.name, strict=False)
        except ValueError:
            continue
        if network.subnet_of(CLIENTS):
            yield str(network[-1] if network.num_addresses == 1 else network[1])


# --- routes that no client's request takes ------------------------------------------------


def from_outside(route: Route) -> bool:
    """Whether a client's request can take a route: not `internal`, not only after an error."""
    location = innermost(route)
    if location is None:
        return True
    if is_internal(route):
        return any(_paths_rewritten(location, route.scopes[1]))
    return not words(location).startswith("@") or leads_to(words(location), route.scopes[1])


def is_internal(route: Route) -> bool:
    """Whether nginx answers a client's request for the route's location with 404."""
    return any(scope.all("internal") for scope in route.scopes if scope.name == "location")


def leads_to(name: str, server: Directive) -> bool:
    """Whether `try_files`, or `error_page` for a code that nginx itself answers, leads there."""
    returns = {line.args[0] for line in everything(server) if line.name == "return" and line.args}
    for block in (server, *everything(server)):
        if any(name in line.args for line in block.all("try_files")):
            return True
        # where there is a proxy_pass, its server answers the others
        codes = returns if block.all("proxy_pass") else {"404", "403", "405"} | returns
        lines = block.all("error_page")
        if any(name in line.args and codes & set(line.args) for line in lines):
            return True
    return False


def subrequest_to(others: Iterable[Route], route: Route) -> Directive | None:
    """The `auth_request` or `mirror` in effect on a route that leads to one of the others."""
    targets = [location for other in others if (location := innermost(other)) is not None]
    lines = (*effective(route.scopes, "auth_request"), *effective(route.scopes, "mirror"))
    for line in lines:
        location = location_of(route.scopes[1], encoded(line.args[0])) if line.args else None
        if any(location is target for target in targets):
            return line
    return None


def obstacle(route: Route, conf: Variables) -> str:
    """Why no request could be constructed for a route."""
    place = f'location "{route.location}" ({route.where})'
    if entry(route) is None:
        return f"{place}: its server listens only on unix sockets or by QUIC"
    if not any(paths(route)):
        return f"{place}: no request path was found that nginx sends there"
    names = [(match[1] or match[2]).lower() for match in VARIABLE.finditer(route.proxy_pass)]
    definitions = [shown(definition) for definition in _definitions(names, conf)]
    decided = ", ".join(definitions or [f"${name}" for name in names])
    tests = " and ".join(shown(scope) for scope in route.scopes if scope.name == "if")
    if not decided:
        return f"{place}: no request was found for which {tests or 'an if around it'} holds"
    return f"{place}: no request was found for which {decided} leads to it"


def shown(line: Directive) -> str:
    """A directive and its place, as messages have them."""
    return f"{' '.join((line.name, *line.args))} ({line.where})"


def deciding_geo(texts: Iterable[str], route: Route, conf: Variables) -> Directive | None:
    """A `geo` by the client's address on which texts depend, through map and set; else None."""
    assigned = sets_of(route.scopes[1])
    waiting, seen = list(texts), set[str]()
    while waiting:
        names = {(match[1] or match[2]).lower() for match in VARIABLE.finditer(waiting.pop())}
        for name in names - seen:
            block = conf.definitions.get(name)
            if block is not None and block.name == "geo":
                return block
            lines = (block.block or ()) if block is not None else ()
            waiting += block.args[:-1] if block is not None else assigned.get(name, ())
            waiting += [arg for line in lines for arg in line.args]
        seen |= names
    return None


def choosing(route: Route) -> list[str]:
    """The texts that decide whether a request takes a route: `proxy_pass`, and each `if`."""
    tests = [" ".join(test.args) for scope in route.scopes for test in scope.all("if")]
    return [route.proxy_pass, *tests]


def refusing_tests(route: Route) -> list[Directive]:
    """The `if`s with a `return` before a route's `proxy_pass`, also those of `auth_request`."""
    tests = [test for scope in route.scopes for test in scope.all("if") if test.all("return")]
    return [*tests, *checks_of_auth_request(route)]


def refusing(template: Template, conf: Variables) -> Directive | None:
    """The `if` with a `return` that holds for a request, else a `deny` in effect; else None.

    Last comes an `if` that the lab cannot evaluate.
    """
    route = replace(conf, route=template.route)
    holds = [
        (test, conditions((test,), route)(template.request))
        for test in refusing_tests(template.route)
    ]
    sure = (test for test, outcome in holds if outcome == [True])
    unknown = (test for test, outcome in holds if not outcome)
    return next(chain(sure, denials(template.route), unknown), None)


def denials(route: Route) -> Iterator[Directive]:
    """The `deny` lines in effect on a route."""
    for scope in reversed(route.scopes):
        rules = [line for line in scope.block or () if line.name in ("allow", "deny")]
        if rules:
            yield from (rule for rule in rules if rule.name == "deny")
            return


def _definitions(names: Iterable[str], conf: Variables) -> Iterator[Directive]:
    return (conf.definitions[name] for name in names if name in conf.definitions)


# --- templates -------------------------------------------------------------------------


def candidates(route: Route, conf: Variables) -> tuple[Template, ...]:
    """Templates that should pass through a route, the simplest first."""
    entrance, listen = entry(route), chosen_listen(route)
    if entrance is None or listen is None:
        return ()
    captures = next(upstream_named(route, conf.definitions), NO_GROUPS)
    route = replace(route, listen=(listen,))  # which decides $scheme, $server_port and others
    templates = (
        Template(route, entrance, request)
        for host, path in product(hosts(route, captures), dict.fromkeys(paths(route, captures)))
        for plain in _methods(
            Request(path, "127.0.0.1", headers=_headers(host, entrance, route)), route
        )
        if (ready := _conditions(plain, route, conf)) is not None
        for request in islice(matching_requests(ready, route, conf), 2)
    )
    return tuple(islice(_distinct(templates), MOST_CANDIDATES))


def _distinct(templates: Iterable[Template]) -> Iterator[Template]:
    seen: list[Request] = []
    for template in templates:
        if template.request not in seen:
            seen.append(template.request)
            yield template


def _methods(request: Request, route: Route) -> Iterator[Request]:
    yield request
    json = with_header(request, "Content-Type", "application/json")
    yield structs.replace(json, method="POST", body=BODY)
    location = innermost(route)
    if location is not None and words(location).startswith("@"):
        yield structs.replace(
            json, method="PUT", body=BODY
        )  # nginx answers 405 where it serves files


def _headers(host: str, entrance: Entry, route: Route) -> dict[str, str]:
    usual = 443 if entrance.tls else 80
    headers = {"Host": host if entrance.port == usual else f"{host}:{entrance.port}"}
    headers["User-Agent"] = "lab"  # without one some configs refuse a client as a bot
    if is_on(route, "auth_basic"):
        secret = base64.b64encode(":".join(LOGIN).encode()).decode()
        headers["Authorization"] = f"Basic {secret}"
    return headers


def is_on(route: Route, directive: str) -> bool:
    """Whether a directive such as `auth_basic` is in effect on the route, and not `off`."""
    return any(line.args != ("off",) for line in effective(route.scopes, directive))


def _conditions(request: Request, route: Route, conf: Variables) -> Request | None:
    """The request, changed to pass every `if` and `limit_except` on its route."""
    changed: Request | None = request
    for scope in route.scopes:
        tests = scope.all("if") if scope.name in ("server", "location") else ()
        for test in tests:
            if changed is not None and test.all("return"):
                changed = avoiding(changed, test, conf)
        if changed is not None and scope.name == "if":
            changed = _entering(changed, scope, route, conf)
        elif changed is not None and scope.name == "limit_except":
            changed = allowed(changed, scope)
    for test in checks_of_auth_request(route):
        changed = changed and avoiding(changed, test, conf)
    for test in islice(returning_to(route), 1):
        changed = changed and (satisfying(changed, test, conf) or changed)
    return changed


def returning_to(route: Route) -> Iterator[Directive]:
    """The `if`s with a `return` that `error_page` makes lead to the route's named location."""
    location, server = innermost(route), route.scopes[1]
    name = words(location) if location is not None else ""
    for block in (server, *everything(server)) if name.startswith("@") else ():
        lines = block.all("error_page") or server.all("error_page")
        codes = {code for line in lines if name in line.args for code in line.args}
        for test in block.all("if"):
            if any(codes & set(line.args[:1]) for line in test.all("return")):
                yield test


def checks_of_auth_request(route: Route) -> Iterator[Directive]:
    """The `if`s with a `return` in the location that `auth_request` asks about a request."""
    for line in effective(route.scopes, "auth_request"):
        asked = location_of(route.scopes[1], encoded(line.args[0])) if line.args else None
        for test in asked.all("if") if asked is not None else ():
            if test.all("return"):
                yield test


def _entering(request: Request, test: Directive, route: Route, conf: Variables) -> Request | None:
    """The request changed so that an `if` holds, also one of a variable that other `if`s set."""
    if (changed := satisfying(request, test, conf)) is not None:
        return changed
    holds = conditions((test,), replace(conf, route=route))
    setting = [other for scope in route.scopes for other in scope.all("if") if other.all("set")]
    for chosen in product((False, True), repeat=min(len(setting), MOST_TESTS)):
        candidate: Request | None = request
        for other in compress(setting, chosen):
            candidate = candidate and satisfying(candidate, other, conf)
        if candidate is not None and holds(candidate) == [True]:
            return candidate
    return None


def keeps_route(template: Template, conf: Variables) -> Callable[[Request], bool]:
    """A test whether a request changed for a hash key still takes the template's route."""
    location = innermost(template.route)
    server = template.route.scopes[1]
    redirected = location is None or words(location).startswith("@") or is_internal(template.route)
    refusals = refusing_tests(template.route)
    refused = conditions(refusals, replace(conf, route=template.route))
    usual = refused(template.request)

    def still(request: Request) -> bool:
        try:
            path = normal(re.split(rb"[?#]", target(request), maxsplit=1)[0], merge_slashes=True)
        except UsageError:
            return False
        if not redirected and location_of(server, path) is not location:
            return False
        return refused(request) == usual and selects_upstream(request, template.route, conf)

    return still
