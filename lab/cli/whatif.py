"""`lab whatif`: how each method would have spread the traffic of an access log."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ..errors import UsageError
from ..evidence.log_file import opened
from ..nginxconf import methods as known
from ..report import tables
from ..whatif import replay, spread
from .options import Json, names_in
from .terminal import note, say, show


def whatif(
    log: Annotated[str, typer.Argument(help="An access log, compressed or not; - is stdin.")],
    log_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="nginx's log_format, its text or the directive. Default: combined, optionally with"
            " times after it, or JSON whose keys are nginx's variables.",
        ),
    ] = "",
    servers: Annotated[str, typer.Option(help="Number of servers, or their names: a:1,b:1.")] = "3",
    weights: Annotated[str, typer.Option(help="One weight for each server: 3,2,1.")] = "",
    key: Annotated[str, typer.Option(help="Key of the hash methods.")] = "$request_uri",
    methods: Annotated[str, typer.Option(help="Methods, separated by commas. Default: all.")] = "",
    service_time: Annotated[
        float, typer.Option(help="Duration in seconds of requests without one in the log.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Replay an access log through every method.

    Prints how each would have spread the traffic: each server's requests, its highest number of
    requests in flight, and the effect on the other servers of losing the busiest one. Needs no
    Docker.
    """
    if not key:
        raise UsageError("--key is empty", "--key '$request_uri', which is the default")
    names = names_in(methods) if methods else list(known.methods())
    texts = replay.server_texts(servers)
    with read(log) as stream:
        traffic = spread.traffic(stream, key, log_format, service_time, name_of(log))
    result = replay.whatif(
        traffic,
        [known.method(name).name for name in names],
        texts,
        weights=weights,
        key=key,
        service_time=service_time,
        on_progress=lambda method: note(f"replayed {len(traffic):,} requests by {method}"),
    )
    show(result.as_dict()) if as_json else say(tables.whatif(result))


def name_of(path: str) -> str:
    """A log's name in messages."""
    return "stdin" if path == "-" else f'"{path}"'


@contextmanager
def read(path: str) -> Iterator[Iterable[bytes]]:
    """The lines of a log; UsageError where it cannot be read."""
    try:
        with opened(path) as stream:
            yield stream
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"log {name_of(path)} cannot be read: {reason}", "name a file, or - for stdin"
        ) from None
