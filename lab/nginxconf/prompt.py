"""The part of a prompt that prompt_prefix hashes, and how nginx reads it: by map or njs."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import UsageError
from ..paths import ROOT

NJS_FILE = ROOT / "nginx/njs/prompt_prefix.conf"
MAX_DEPTH = 31  # arrays and objects inside each other that njs parses
MAX_CHARACTERS = 100_000
MAP, NJS = "map", "njs"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The part of a prompt that is hashed: `characters` after the first `skip`.

    `reader` reads it inside nginx: MAP, a `map` of regexes, or NJS, a script of the njs module.
    """

    characters: int = 200
    skip: int = 0
    reader: str = MAP

    def __post_init__(self) -> None:
        if not 1 <= self.characters <= MAX_CHARACTERS:
            hint = f"--characters with a number from 1 to {MAX_CHARACTERS}"
            raise UsageError(f"--characters {self.characters} is out of range", hint)
        if not 0 <= self.skip <= MAX_CHARACTERS:
            raise UsageError(
                f"--skip {self.skip} is out of range",
                f"--skip with a number from 0 to {MAX_CHARACTERS}",
            )
        if self.reader not in (MAP, NJS):
            raise UsageError(f'--reader "{self.reader}" is unknown', f"--reader {MAP} or {NJS}")


def directives(prefix: Prefix, map_text: str) -> str:
    """The directives that define $prompt_prefix; `map_text` is the map of the method's file."""
    if prefix.reader == NJS:
        lines = NJS_FILE.read_text().splitlines()
        text = "\n".join(line for line in lines if not line.startswith("#"))
        text = text.replace("default 200;", f"default {prefix.characters};")
        return text.replace("default 0;", f"default {prefix.skip};")
    text = map_text.replace("{200}", f"{{{prefix.characters}}}")
    text = text.replace("{1,200}", f"{{1,{prefix.characters}}}")
    text = text.replace("{1,199}", f"{{1,{max(1, prefix.characters - 1)}}}")
    return _with_skip(text, prefix.skip) if prefix.skip else text


def _with_skip(text: str, skip: int) -> str:
    """The map with a second set of regexes, tried first, that skip `skip` characters."""
    lines = text.splitlines()
    skipping = [line.replace("{0}", f"{{{skip}}}") for line in lines if "{0}" in line]
    default = next(number for number, line in enumerate(lines) if "default" in line)
    return "\n".join([*lines[: default + 1], *skipping, *lines[default + 1 :]])


def hashed_text(body: bytes, uri: bytes, characters: int, skip: int) -> bytes:
    """The value of $prompt_prefix with njs, as nginx/njs/prompt_prefix.js computes it.

    The first characters of the body if it is not JSON with a prompt; `uri` if it is empty. It
    differs from njs for JSON that only njs accepts, such as a number with a leading 0, and for a
    lone surrogate followed by a surrogate pair.
    """
    if not body:
        return uri
    text = body.decode("utf-8", "replace")
    texts = _prompt_texts(text)
    if not texts:
        return text[:characters].encode()
    first = texts[0][skip : skip + characters] or texts[0][:characters]
    second = texts[1][:characters] if len(first) < characters and len(texts) > 1 else ""
    return f"{first}{second}".encode()


def _prompt_texts(body: str) -> list[str]:
    """The texts of a prompt in their order: of messages and their parts, or the prompt itself."""
    try:
        request = json.loads(body, parse_constant=_refuse, parse_int=float)
    except (ValueError, RecursionError):
        return []
    if not isinstance(request, dict) or _depth(request) > MAX_DEPTH:
        return []
    for field in ("messages", "input"):
        if texts := [_as_in_njs(text) for text in _message_texts(request.get(field)) if text]:
            return texts
    values = (request.get(field) for field in ("prompt", "message", "input"))
    firsts = (value[0] if isinstance(value, list) and value else value for value in values)
    return [_as_in_njs(text) for text in firsts if isinstance(text, str) and text][:1]


def _message_texts(messages: Any) -> Iterator[str]:
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else [{"text": content}]:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                yield text


def _depth(value: Any) -> int:
    """The nesting depth of arrays and objects."""
    depth, level = 0, [value]
    while level := [inner for inner in level if isinstance(inner, dict | list)]:
        depth += 1
        level = [
            item
            for inner in level
            for item in (inner.values() if isinstance(inner, dict) else inner)
        ]
    return depth


def _as_in_njs(text: str) -> str:
    """The text as in njs, where a lone surrogate is a replacement character."""
    return re.sub(r"[\ud800-\udfff]", "\ufffd", text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
