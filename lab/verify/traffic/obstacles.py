"""Why no request of a client reaches an upstream."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

from ...nginxconf.routes import VARIABLE, Route, effective, everything
from ...nginxconf.tree import Directive
from ...nginxconf.variables import Variables, conditions
from .entrances import entry
from .locations import encoded, innermost, is_internal, location_of, paths, paths_rewritten, words
from .template import Template
from .upstream_choice import sets_of


def from_outside(route: Route) -> bool:
    """Whether a client's request can take a route: not `internal`, not only after an error."""
    location = innermost(route)
    if location is None:
        return True
    if is_internal(route):
        return any(paths_rewritten(location, route.scopes[1]))
    return not words(location).startswith("@") or leads_to(words(location), route.scopes[1])


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


def checks_of_auth_request(route: Route) -> Iterator[Directive]:
    """The `if`s with a `return` in the location that `auth_request` asks about a request."""
    for line in effective(route.scopes, "auth_request"):
        asked = location_of(route.scopes[1], encoded(line.args[0])) if line.args else None
        for test in asked.all("if") if asked is not None else ():
            if test.all("return"):
                yield test
