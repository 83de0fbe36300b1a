"""What a stage is to hold: a config and its files, the stand-ins, the names and addresses."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Door:
    """Where a stand-in listens; `near` ones stand beside nginx, on addresses of its own machine."""

    host: str
    port: int
    tls: bool = False
    near: bool = True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a stage is to hold: `conf` with all its files by path, the stand-ins, what names mean.

    `own` are addresses of nginx's machine beyond loopback; `dns` where it asks for names; `pem`
    a certificate with its key, empty where no TLS is spoken; `own_files` gives the content of a
    file that nginx asks for and `files` lacks, None where there is none; `ipv6` says that IPv6 is
    spoken.
    """

    conf: str
    files: Mapping[str, bytes]
    doors: tuple[Door, ...]
    names: Mapping[str, str]
    own: tuple[str, ...] = ()
    dns: tuple[tuple[str, int], ...] = ()
    pem: str = ""
    ipv6: bool = False
    own_files: Callable[[str], bytes | None] = lambda _: None
