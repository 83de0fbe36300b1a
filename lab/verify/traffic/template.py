"""A request that leads to an upstream, and where it is sent."""

from dataclasses import dataclass

from ...nginxconf.request import Request
from ...nginxconf.routes import Route


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
