"""The environment of a sandbox: config files, stub backends, names and addresses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a stub backend listens; `near`: in nginx's own network namespace.

    `host` is "unix:" and a path for a unix socket, which has no port.
    """

    host: str
    port: int
    tls: bool = False
    near: bool = True

    @property
    def socket(self) -> str:
        """The path of the unix socket; empty if it is none."""
        return "" if self.port else self.host.partition(":")[2]

    def __str__(self) -> str:
        if self.socket:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Environment:
    """What nginx needs around it: `conf`, `files` by path, stub backends, addresses by name.

    `own` are addresses of nginx's host other than loopback; `dns` its name servers; `pem`
    a certificate with its key, empty without TLS; `own_files` gives the content of a
    file that `files` lacks, None if there is none; `ipv6` enables IPv6;
    `timed` asks for an access log with nginx's own times.
    """

    conf: str
    files: Mapping[str, bytes]
    endpoints: tuple[Endpoint, ...]
    names: Mapping[str, str]
    own: tuple[str, ...] = ()
    dns: tuple[tuple[str, int], ...] = ()
    pem: str = ""
    ipv6: bool = False
    timed: bool = False
    own_files: Callable[[str], bytes | None] = lambda _: None
