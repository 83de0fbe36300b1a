"""`lab chat`, `complete`, `stress`: the article's clients."""

from typing import Annotated

import typer

from ..traffic.clients import SyncClient
from ..traffic.stress import stress as call_all
from .here import this_lab
from .options import Json
from .terminal import exit_unless, say, show


def chat(
    message: Annotated[str, typer.Argument(help="The message.")],
    stream: Annotated[bool, typer.Option(help="Stream tokens from the OpenAI API.")] = False,
    as_json: Json = False,
) -> None:
    """Send one chat message, as the article's client does."""
    client = SyncClient(this_lab().front)
    if not stream:
        answer = client.chat(message)
        show(answer) if as_json else say(f"{answer['response']}  ({answer['server']})")
        return
    pieces = client.chat_stream(message)
    if as_json:
        show([str(piece) for piece in pieces])
        return
    for piece in pieces:
        typer.echo(piece, nl=False)
    typer.echo()


def complete(
    text: Annotated[str, typer.Argument(help="Text to complete.")], as_json: Json = False
) -> None:
    """Request one completion, as the article's client does."""
    answer = SyncClient(this_lab().front).completions(text)
    lines = [choice["text"] for choice in answer["completions"]]
    show(answer) if as_json else say("\n".join([*lines, f"({answer['server']})"]))


def stress(
    chats: Annotated[int, typer.Option(help="Number of chats.")] = 100,
    completions: Annotated[int, typer.Option(help="Number of completions.")] = 100,
    streams: Annotated[int, typer.Option(help="Number of streamed chats.")] = 0,
    as_json: Json = False,
) -> None:
    """Send up to 1,000 requests at once; count each server's answers."""
    report = call_all(this_lab().front, chats, completions, streams)
    show(report.as_dict()) if as_json else say(report)
    exit_unless(report.complete)
