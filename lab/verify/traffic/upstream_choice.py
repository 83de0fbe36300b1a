"""Which upstream a `proxy_pass` with variables chooses, and requests that choose one."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from types import MappingProxyType

from msgspec import structs

from ...errors import UndecidedError, UsageError
from ...nginxconf.request import Request
from ...nginxconf.routes import VARIABLE, Route, authority, everything
from ...nginxconf.tree import Directive
from ...nginxconf.variables import Variables, compile_text
from .assignments import Assignment, Definitions, assignments
from .request_values import satisfying, with_variable, with_variables
from .sample import NO_GROUPS
from .template import Template

FEWEST_CHANCES, MOST_CHANCES = 4, 25  # for one request to arrive where chance decides
NO_BLOCKS: Mapping[str, Directive] = MappingProxyType({})
MOST_GUESSES = 300  # requests that are guessed where a variable decides
CLIENTS = IPv4Network("127.0.0.0/8")  # their addresses, all of which are local


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
