"""Hosts, files and modules that nginx needs to start and that are missing on this machine."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ...nginxconf.model import Upstream

ALLOW = "--allow-unsure accepts it as it is"


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """A missing host or file that nginx needs to start; `--assume` takes its `name`."""

    name: str
    cause: str
    hint: str

    def __str__(self) -> str:
        return f"UNSURE {self.cause}\ntry:   {self.hint}"


def remaining(
    prerequisites: Iterable[Prerequisite], assumed: Sequence[str]
) -> tuple[Prerequisite, ...]:
    """The prerequisites that no pattern of `--assume` matches."""
    return tuple(
        prerequisite
        for prerequisite in dict.fromkeys(prerequisites)
        if not exists(prerequisite.name, assumed)
    )


def exists(name: str, assumed: Iterable[str]) -> bool:
    """Whether a pattern of `--assume` matches a host or file."""
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in assumed)


def unresolved(host: str, where: str, upstreams: Iterable[Upstream]) -> Prerequisite:
    """A host name without an `upstream` block: a name in the user's network, or a typo."""
    blocks = {upstream.name.lower(): upstream for upstream in upstreams if upstream.line}
    near = get_close_matches(host.lower(), blocks, 1)
    meant = "".join(f'is upstream "{blocks[name].name}" meant? ' for name in near)
    return Prerequisite(
        host,
        f'host "{host}" ({where}): no upstream block has that name, so nginx starts only where'
        " the name resolves",
        f"{meant}if the host exists where nginx runs: --assume {host}",
    )


def unresolved_listen(host: str, where: str) -> Prerequisite:
    """A host name on which nginx is to listen: one of its own machine, or a typo."""
    return Prerequisite(
        host,
        f'host "{host}" ({where}): nginx is to listen there, so it starts only where the name'
        " resolves to an address of its own machine",
        f"write a port or an address; if the host exists where nginx runs: --assume {host}",
    )


def absent_file(path: str, where: str) -> Prerequisite:
    """A file that nginx needs, found neither beside the config nor at its path."""
    return Prerequisite(
        path,
        f"{path} ({where}): no such file, so nginx would not start; an empty one was used",
        f"put it beside the config; if it exists where nginx runs: --assume {path}",
    )


def absent_module(path: str, where: str) -> Prerequisite:
    """A module that nginx needs to start and the lab's nginx lacks."""
    return Prerequisite(
        path,
        f"module {path} ({where}): not in the lab's nginx, so it was left out; yours starts only"
        " where the module is installed",
        f"if it is installed where nginx runs: --assume {path}",
    )


def names_to_resolve(hosts: Iterable[str]) -> Iterator[str]:
    """A note on names of `server` and `resolver` lines, which the user's network must resolve."""
    names = sorted(dict.fromkeys(hosts))
    if names:
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        yield f"nginx starts only where these names resolve: {shown}"
