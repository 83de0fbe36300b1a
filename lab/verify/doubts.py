"""What has to exist where nginx runs and is not here: without it nginx would not start."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..nginxconf.model import Upstream

ALLOW = "--allow-unsure accepts it as it is"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A host or file that the config needs at start; `name` is what `--assume` takes."""

    name: str
    cause: str
    hint: str

    def __str__(self) -> str:
        return f"UNSURE {self.cause}\ntry:   {self.hint}"


def remaining(doubts: Iterable[Doubt], assumed: Sequence[str]) -> tuple[Doubt, ...]:
    """The doubts whose host or file no pattern of `--assume` names."""
    return tuple(doubt for doubt in dict.fromkeys(doubts) if not exists(doubt.name, assumed))


def exists(name: str, assumed: Iterable[str]) -> bool:
    """Whether the user says that a host or file exists where nginx runs."""
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in assumed)


def unresolved(host: str, where: str, upstreams: Iterable[Upstream]) -> Doubt:
    """A host name that no `upstream` block has: a name of the user's network, or a typing error."""
    blocks = {upstream.name.lower(): upstream for upstream in upstreams if upstream.line}
    near = get_close_matches(host.lower(), blocks, 1)
    meant = "".join(f'is upstream "{blocks[name].name}" meant? ' for name in near)
    return Doubt(
        host,
        f'host "{host}" ({where}): no upstream block has that name, so nginx starts only where'
        " the name resolves",
        f"{meant}if the host exists where nginx runs: --assume {host}",
    )


def absent_file(path: str, where: str) -> Doubt:
    """A file that nginx needs and that is neither next to the config nor at its path."""
    return Doubt(
        path,
        f"{path} ({where}): no such file, so nginx would not start; an empty one was used",
        f"put it beside the config; if it exists where nginx runs: --assume {path}",
    )


def names_to_resolve(hosts: Iterable[str]) -> Iterator[str]:
    """A note on the names of `server` lines, which the lab resolves and the user's network must."""
    found = sorted(dict.fromkeys(hosts))
    if found:
        shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        yield f"nginx starts only where these names resolve: {shown}"
