"""Which `location` a path leads to, and which paths lead to a location."""

import re
from collections.abc import Iterator, Mapping

from ...errors import UsageError
from ...nginxconf.maps import pattern
from ...nginxconf.request import normal
from ...nginxconf.routes import Route, everything
from ...nginxconf.tree import Directive
from .assignments import Assignment
from .sample import NO_GROUPS, sample, sampled

GROUP_OR_VARIABLE = re.compile(rb"\$(?:\{(\w+)\}|([0-9]|\w+))")


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
        yield from paths_rewritten(location, route.scopes[1])
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


def paths_rewritten(location: Directive, server: Directive) -> Iterator[str]:
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


def is_internal(route: Route) -> bool:
    """Whether nginx answers a client's request for the route's location with 404."""
    return any(scope.all("internal") for scope in route.scopes if scope.name == "location")
