"""What a config needs, by the config alone, and what the lab cannot provide."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain

from ...nginxconf.model import Server, Upstream
from ...nginxconf.routes import EVERY_IPV4, Listen, Route, everything, listens, routes
from ...nginxconf.tree import Config, Directive
from ...nginxconf.upstream import read_all
from ..traffic import entrances
from .environment import Endpoint
from .prerequisites import Prerequisite, unresolved, unresolved_listen

# a certificate or key that nginx reads at start, whatever speaks TLS with it
CERTIFICATE = re.compile(
    r"(?:proxy_|grpc_|uwsgi_)?ssl_"
    r"(?:certificate(?:_key)?|trusted_certificate|client_certificate|dhparam)"
)
TLS_NAME = re.compile(r"[\w.-]+")
OTHER_PASSES = ("grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass")
NAMES_NONE = "names no upstream of this config"
WILDCARDS = {4: EVERY_IPV4, 6: "::"}
LOOPBACKS = {4: "127.0.0.1", 6: "::1"}
DNS_PORT = 53
MOST_LINES = 3  # of one kind; more are counted in one


@dataclass(frozen=True, slots=True)
class ServerStubs:
    """The stub backends of one `server` line, one per address.

    It has none where nginx itself listens at its address: `occupied` holds those listeners.
    """

    server: str
    endpoints: tuple[Endpoint, ...]
    occupied: tuple[Listen, ...] = ()

    @property
    def reason(self) -> str:
        """Why there is no stub backend; empty if there is one."""
        if not self.occupied:
            return ""
        return f"nginx itself listens there (listen {self.occupied[0]})"


@dataclass(frozen=True, slots=True)
class Survey:
    """A config's upstreams and routes, and the environment that they need.

    `places` holds the stub backends of each upstream's servers, by the upstream's name; `names` the
    address of every host name; `own` the addresses that nginx listens on beyond loopback;
    `tls_names` what nginx expects in the servers' certificates;
    `workers` the number of workers as written; `unmet` lists deviations from the config;
    `prerequisites` host names without an `upstream` block, by the implicit upstream.
    """

    upstreams: tuple[Upstream, ...]
    routes: Mapping[str, tuple[Route, ...]]
    places: Mapping[str, tuple[ServerStubs, ...]]
    names: Mapping[str, str]
    own: tuple[str, ...]
    dns: tuple[tuple[str, int], ...]
    listens: tuple[Listen, ...]
    certificates: tuple[Directive, ...]
    tls_names: tuple[str, ...]
    logins: tuple[Directive, ...]
    workers: str
    unmet: tuple[str, ...]
    prerequisites: Mapping[str, Prerequisite] = field(default_factory=dict)

    @property
    def ipv6(self) -> bool:
        """Whether IPv6 is used anywhere."""
        texts = [endpoint.host for endpoint in self.endpoints] + [
            listen.address for listen in self.listens
        ]
        return any(":" in text for text in (*texts, *self.own) if not is_socket(text))

    @property
    def occupied(self) -> frozenset[Listen]:
        """nginx's own listeners at the address of a server."""
        places = chain.from_iterable(self.places.values())
        return frozenset(chain.from_iterable(place.occupied for place in places))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every stub backend once, even if its address is named twice."""
        endpoints = [
            endpoint
            for places in self.places.values()
            for place in places
            for endpoint in place.endpoints
        ]
        once: dict[tuple[str, int], Endpoint] = {}
        for endpoint in endpoints:
            once.setdefault((endpoint.host, endpoint.port), endpoint)
        return tuple(once.values())


def survey(config: Config) -> Survey:
    """Read from a config what it needs; UsageError for what nginx refuses."""
    upstreams = read_all(config)
    http = [upstream for upstream in upstreams if not upstream.stream]
    routes_to = routes_by_upstream(config)
    listens = tuple(dict.fromkeys(every_listen(config)))
    resolvers = [line for line in directives(config) if line.name == "resolver"]
    local = own_addresses(listens)
    names = host_names(upstreams, listens, resolvers)
    places = {
        upstream.name: tuple(
            place(server, routes_to.get(upstream.name.lower(), ()), names, listens, local)
            for server in upstream.servers
        )
        for upstream in http
    }
    dns = tuple(name_servers(resolvers, names))
    far_dns = tuple(host for host, _ in dns if not ip_address(host).is_loopback)
    return Survey(
        upstreams=tuple(http),
        routes=routes_to,
        places=places,
        names=names,
        own=tuple(dict.fromkeys((*local, *far_dns))),
        dns=dns,
        listens=listens,
        certificates=tuple(line for line in directives(config) if is_certificate(line)),
        tls_names=tuple(server_tls_names(config)),
        logins=tuple(logins(config)),
        workers=_workers(config),
        unmet=tuple(dict.fromkeys(unmet(config, http, routes_to, places))),
        prerequisites=dict(hosts_without_block(http, routes_to)),
    )


def routes_by_upstream(config: Config) -> dict[str, tuple[Route, ...]]:
    """The routes to each upstream, by its name in lower case."""
    routes_to: dict[str, tuple[Route, ...]] = {}
    for route in routes(config):
        name = route.upstream.lower()
        routes_to[name] = (*routes_to.get(name, ()), route)
    return routes_to


def server_tls_names(config: Config) -> Iterator[str]:
    """The names without variables by which nginx addresses TLS servers."""
    for line in directives(config):
        if line.name == "proxy_ssl_name" and TLS_NAME.fullmatch("".join(line.args)):
            yield line.args[0]


def logins(config: Config) -> Iterator[Directive]:
    """The directives that name a file of users and passwords."""
    for line in directives(config):
        if line.name == "auth_basic_user_file" and line.args:
            yield line


def hosts_without_block(
    upstreams: Sequence[Upstream], routes_to: Mapping[str, Sequence[Route]]
) -> Iterator[tuple[str, Prerequisite]]:
    """A prerequisite for each implicit group, of a `proxy_pass` to a host name."""
    for upstream in upstreams:
        host, _ = split_address(upstream.servers[0].name)
        if not upstream.line and host and literal(host) is None and host.lower() != "localhost":
            where = routes_to[upstream.name.lower()][0].where
            yield upstream.name, unresolved(host, where, upstreams)


def directives(config: Config) -> Iterator[Directive]:
    """Every directive of a config, at any depth, in the order of the file."""
    return everything(Directive("", (), block=config.directives))


def is_whole(config: Config) -> bool:
    """Whether nginx can start with a config as it is."""
    return any(line.name in ("http", "events") for line in config.directives)


def _workers(config: Config) -> str:
    if not is_whole(config):
        return "auto"
    lines = [
        line for line in config.directives if line.name in ("worker_processes", "master_process")
    ]
    if any(line.name == "master_process" and line.args == ("off",) for line in lines):
        return "1"
    return next(
        (line.args[0] for line in lines if line.name == "worker_processes" and line.args), "1"
    )


# --- listen -------------------------------------------------------------------------------


def every_listen(config: Config) -> Iterator[Listen]:
    """What nginx listens on, for http and stream alike."""
    return chain.from_iterable(map(listens, every_server(config)))


def every_server(config: Config) -> Iterator[Directive]:
    """The `server` blocks of http and stream."""
    for context in ("http", "stream"):
        yield from config.block(context).all("server")


def listen_hosts(config: Config) -> Iterator[Prerequisite]:
    """A prerequisite for each host name on which nginx is to listen."""
    for line in chain.from_iterable(server.all("listen") for server in every_server(config)):
        for listen in listens(Directive("server", (), block=(line,))):
            named = listen.port and listen.address.lower() not in ("*", "localhost")
            if named and literal(listen.address) is None:
                yield unresolved_listen(listen.address, line.where)


def own_addresses(listens: Iterable[Listen]) -> tuple[str, ...]:
    """The addresses beyond loopback that nginx binds to by name."""
    addresses = (literal(listen.address) for listen in listens)
    return tuple(
        dict.fromkeys(
            str(address)
            for address in addresses
            if address and not (address.is_loopback or address.is_unspecified)
        )
    )


def literal(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address, in brackets or not; None for a name."""
    try:
        return ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


# --- names --------------------------------------------------------------------------------


def host_names(
    upstreams: Iterable[Upstream], listens: Iterable[Listen], resolvers: Iterable[Directive]
) -> dict[str, str]:
    """An address for every name: one for each server, loopback for names of nginx's own machine.

    The servers' are from the range for benchmarks (RFC 2544), which no fleet uses.
    """
    addresses = {"localhost": LOOPBACKS[4]}
    here = [listen.address for listen in listens if listen.address != "*" and listen.port]
    here += [split_address(text, DNS_PORT)[0] for line in resolvers for text in _addresses(line)]
    for text in here:
        if literal(text) is None:
            addresses.setdefault(text.lower(), LOOPBACKS[4])
    servers = [server for upstream in upstreams for server in upstream.servers]
    for server in servers:
        host, _ = split_address(server.name)
        if host and literal(host) is None and host.lower() not in addresses:
            number = len(addresses)
            addresses[host.lower()] = f"198.18.{number >> 8}.{number & 255}"
    return addresses


def is_socket(text: str) -> bool:
    """Whether an address is the path of a unix socket."""
    return text.lower().startswith("unix:")


def split_address(text: str, port: int = 80) -> tuple[str, int]:
    """Host and port of an address as nginx writes them; no host for a unix socket."""
    if is_socket(text):
        return "", 0
    match = re.fullmatch(r"(\[[^]]*\]|[^:]*)(?::(\d+))?", text)
    if match is None:
        return text, port
    return match[1], int(match[2] or port)


def resolver_hosts(config: Config) -> Iterator[str]:
    """The host names of `resolver` lines, which nginx resolves at start."""
    for line in directives(config):
        for text in _addresses(line) if line.name == "resolver" else ():
            host, _ = split_address(text, DNS_PORT)
            if literal(host) is None and host.lower() != "localhost":
                yield host


def _addresses(resolver: Directive) -> Iterator[str]:
    return (text for text in resolver.args if "=" not in text)


def name_servers(
    resolvers: Iterable[Directive], names: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """The addresses of nginx's resolvers, each once."""
    seen = set()
    for line in resolvers:
        for text in _addresses(line):
            host, port = split_address(text, DNS_PORT)
            address = literal(host)
            where = str(address) if address else names[host.lower()], port
            if where not in seen:
                seen.add(where)
                yield where


# --- stub backends ----------------------------------------------------------------------------


def place(
    server: Server,
    routes_to: Sequence[Route],
    names: Mapping[str, str],
    listens: Iterable[Listen],
    local: Sequence[str],
) -> ServerStubs:
    """Where the stub backends of a `server` line listen."""
    endpoints = tuple(_endpoints(server, routes_to, names, local))
    near = (endpoint for endpoint in endpoints if endpoint.near)
    if occupied := tuple(chain.from_iterable(listening(endpoint, listens) for endpoint in near)):
        return ServerStubs(server.name, (), () if server.down else occupied)
    return ServerStubs(server.name, endpoints)


def _endpoints(
    server: Server, routes_to: Sequence[Route], names: Mapping[str, str], local: Sequence[str]
) -> Iterator[Endpoint]:
    """The addresses of a `server` line."""
    tls = any(map(speaks_tls, routes_to))
    # a group without a block takes its port from the scheme
    implicit = tls and any(route.upstream == server.name for route in routes_to)
    host, port = split_address(server.name, 443 if implicit else 80)
    if not host:
        yield Endpoint(server.name, 0, tls)
        return
    for address in addresses(host, names):
        near = address.is_loopback or str(address) in local
        yield Endpoint(str(address), port, tls, near)


def speaks_tls(route: Route) -> bool:
    """Whether nginx speaks TLS to the servers; with `$scheme://`, as the lab's clients do to it."""
    if "$" not in route.scheme:
        return route.scheme == "https"
    listen = entrances.chosen_listen(route)
    return listen is not None and entrances.is_tls(listen)


def addresses(host: str, names: Mapping[str, str]) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses of a server's host; the C library decides whether localhost is IPv4 or IPv6."""
    if host.lower() == "localhost":
        return tuple(map(ip_address, LOOPBACKS.values()))
    address = literal(host) or ip_address(names[host.lower()])
    return (ip_address(LOOPBACKS[address.version]) if address.is_unspecified else address,)


def listening(endpoint: Endpoint, listens: Iterable[Listen]) -> Iterator[Listen]:
    """The listeners that accept connections to a server's address."""
    if endpoint.socket:
        yield from (listen for listen in listens if listen.address == endpoint.host)
        return
    target = ip_address(endpoint.host)
    for listen in listens:
        bound = literal(listen.address)
        everywhere = listen.address == "*" and target.version == 4
        both = str(bound) == "::" and "ipv6only=off" in listen.options
        same = bound in (target, ip_address(WILDCARDS[target.version]))
        by_name = listen.address.lower() == "localhost" and endpoint.host == LOOPBACKS[4]
        if listen.port == endpoint.port and (everywhere or both or same or by_name):
            yield listen


# --- what is not as the config says -------------------------------------------------------


def unmet(
    config: Config,
    upstreams: Sequence[Upstream],
    routes_to: Mapping[str, Sequence[Route]],
    places: Mapping[str, Sequence[ServerStubs]],
) -> Iterator[str]:
    """Everything that the lab does differently from the config, or leaves out, one by one."""
    for block in config.block("stream").all("upstream"):
        name = " ".join(block.args)
        yield f"upstream {name} ({block.where}): a stream upstream, which carries no HTTP"
    for upstream in upstreams:
        if upstream.line and upstream.name.lower() not in routes_to:
            where = f"{upstream.file}:{upstream.line}"
            yield f"upstream {upstream.name} ({where}): no proxy_pass leads to it"
        without_stub = [place for place in places[upstream.name] if place.reason]
        yield from (
            f"server {place.server} (upstream {upstream.name}): {place.reason}"
            for place in without_stub
        )
    known = {upstream.name.lower() for upstream in upstreams}
    for route in chain.from_iterable(routes_to.values()):
        if route.upstream.lower() not in known:
            yield f"proxy_pass {route.proxy_pass} ({route.where}): {NAMES_NONE}"
        if speaks_tls(route):
            yield f"proxy_pass {route.proxy_pass} ({route.where}): TLS with the lab's certificate"
        elif any(map(speaks_tls, routes_to[route.upstream.lower()])):
            yield (
                f"proxy_pass {route.proxy_pass} ({route.where}): no requests, as the stub backends"
                " of this upstream speak TLS only"
            )
    yield from unfollowed(config)


def unfollowed(config: Config) -> Iterator[str]:
    """The directives that the lab does not follow; many of one kind in one line."""
    reasons: dict[str, list[Directive]] = {}
    for line in directives(config):
        if reason := _unmet(line):
            reasons.setdefault(reason, []).append(line)
    for reason, lines in reasons.items():
        shown = lines if len(lines) <= MOST_LINES else lines[:1]
        more = f" and {len(lines) - 1} more lines" if len(lines) > MOST_LINES else ""
        for line in shown:
            yield f"{line.name} {' '.join(line.args)} ({line.where}){more}: {reason}"


def _unmet(line: Directive) -> str:
    """Why one directive is not followed; empty if it is."""
    if not line.args:
        return ""
    if line.name in OTHER_PASSES:
        return "only upstreams of proxy_pass are judged, as the stub backends speak HTTP/1.1"
    if line.name == "resolver":
        return "the lab's own name server is used instead"
    if line.name == "auth_basic_user_file":
        return "the lab's own users are used instead"
    if is_certificate(line):
        return "the lab's own certificate is used instead"
    if line.name == "ssl_verify_client" and line.args[0] == "on":
        return "the lab's clients send its own certificate"
    if line.name.endswith("ssl_crl"):
        return "left out, as the lab's own certificate has no revocation list"
    return _unmet_connection(line)


def _unmet_connection(line: Directive) -> str:
    """Why nginx's connections to clients or servers are not as a directive says; else empty."""
    if line.name == "server" and any(word.startswith("service=") for word in line.args):
        return "the lab's name server has no SRV records, so nginx finds no server"
    if line.name == "proxy_http_version" and line.args[0] == "2":
        return "1.1 is used instead, as the stub backends do not speak HTTP/2"
    if line.name == "proxy_bind" and literal(line.args[0]):
        return "the lab's nginx lacks this address, so its requests may end with 500"
    if line.name == "proxy_ssl_verify" and line.args[0] == "on":
        return "the lab's certificate is valid only for names in server lines and proxy_ssl_name"
    if line.name == "listen" and "quic" in line.args:
        return "the lab sends no HTTP/3"
    if line.name == "listen" and "reuseport" in line.args:
        return "reuseport is left out, so that no connection waits for a worker that was stopped"
    if line.name == "accept_mutex" and line.args[0] == "on":
        return "off is used instead, so that no connection waits for a worker that was stopped"
    return ""


def is_certificate(line: Directive) -> bool:
    """Whether a directive names a file with a certificate or key."""
    return bool(
        CERTIFICATE.fullmatch(line.name)
        and line.args
        and "$" not in line.args[0]
        and not re.match(r"(data|engine|store):", line.args[0])
    )
