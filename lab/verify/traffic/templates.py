"""Find requests that nginx sends through one `proxy_pass`."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import compress, islice, product

from msgspec import structs

from ...errors import UsageError
from ...nginxconf.request import Request, normal, target
from ...nginxconf.routes import Route, effective, everything
from ...nginxconf.tree import Directive
from ...nginxconf.variables import Variables, conditions
from .entrances import chosen_listen, entry, hosts
from .locations import innermost, is_internal, location_of, paths, words
from .obstacles import checks_of_auth_request, refusing_tests
from .request_values import BODY, allowed, avoiding, satisfying, with_header
from .sample import NO_GROUPS
from .template import Entry, Template
from .upstream_choice import matching_requests, selects_upstream, upstream_named

MOST_CANDIDATES = 24  # requests that are tried out for one route
# of the lab's own password file; each one's password is the name
USERS = ("lab", *(f"lab-{number}" for number in range(256)))
MOST_TESTS = 6  # `if`s that set parts of one variable


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
        headers["Authorization"] = authorization(USERS[0])
    return headers


def authorization(user: str) -> str:
    """The Authorization header by which a user of the lab's own password file logs in."""
    return f"Basic {base64.b64encode(f'{user}:{user}'.encode()).decode()}"


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
