"""`lab predict`: which server nginx picks, without Docker."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from ..errors import UsageError
from ..nginxconf import methods, sources
from ..nginxconf.prompt import MAP, Prefix
from ..oracle import prediction
from .options import Characters, Key, Measure, PromptReader, Skip, Zone


def predict(
    method: Annotated[str, typer.Argument(help="A method; not together with --conf.")] = "",
    more: Annotated[list[str], typer.Argument(help="Further servers.")] = [],  # noqa: B006 - typer copies it
    servers: Annotated[
        list[str],
        typer.Option(
            help="Servers as in nginx's server lines: 'a:1 weight=3,b:1 down'; repeatable."
        ),
    ] = [],  # noqa: B006 - typer copies it
    conf: Annotated[Path | None, typer.Option(help="An nginx config to read.")] = None,
    upstream: Annotated[str, typer.Option(help="Upstream to use, if the config has several.")] = "",
    weights: Annotated[str, typer.Option(help="One weight for each server: 3,2,1.")] = "",
    key: Key = "",
    measure: Measure = "header",
    zone: Zone = True,
    characters: Characters = 200,
    skip: Skip = 0,
    reader: PromptReader = MAP,
    requests: Annotated[
        str, typer.Option(help="Requests, one JSON object per line; - is stdin.")
    ] = "-",
) -> None:
    """Predict which server nginx picks; needs no Docker.

    Reads one request per line, as JSON, and prints one line of JSON for each.

    A request is an object with any of uri, client_ip, method, headers, body, key, t, start,
    duration and fail: {"uri": "/chat", "fail": {"a:1": "refused"}}.
    """
    if bool(conf) == bool(method):
        raise UsageError(
            "give either a method or --conf",
            "lab predict hash --servers a:1,b:1 --requests FILE, or --conf nginx.conf",
        )
    if conf:
        group, scope = sources.from_conf(conf, upstream)
    else:
        texts = [text.strip() for words in (*servers, *more) for text in words.split(",")]
        prefix = Prefix(characters, skip, reader)
        group, scope = sources.from_method(method, texts, weights, key, measure, zone, prefix)
        methods.check_key(key, [method])
    source = "stdin" if requests == "-" else requests
    with opened(requests) as lines:
        prediction.predict_lines(group, lines, sys.stdout.buffer, scope, source=source)


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file's bytes, or stdin's for "-"; UsageError where it cannot be read."""
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as stream:
            yield stream
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", "--requests with a file of JSON lines"
        ) from None
