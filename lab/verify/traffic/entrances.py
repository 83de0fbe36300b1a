"""Where a client connects to reach a `server` block: the listener and the host."""

import re
from collections.abc import Iterable, Iterator, Mapping

from ...nginxconf.routes import EVERY_IPV4, Listen, Route, listens
from ...nginxconf.tree import Directive
from .assignments import Assignment
from .sample import NO_GROUPS, sampled
from .template import Entry
from .upstream_choice import upstream_named

# an `if` that holds for requests without TLS
PLAIN = re.compile(r"\$scheme (= http|!= https)|\$https (=|!= on)|\$server_port (= 80|!= 443)")
NOBODY = "nobody.invalid"  # a host that no server_name matches: the default server's


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
