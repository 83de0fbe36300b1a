"""Values for the variables of a request, with which a text of the config has a wanted value."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice

from ...nginxconf.routes import VARIABLE, braced
from ...nginxconf.tree import Directive
from .sample import sampled

DEPTH = 5  # maps and sets that are followed one behind the other
MOST_TEXTS = 100_000  # texts that are tried for one value
MOST = 20  # assignments that are followed for one key of a map
MAP_PARAMETERS = ("hostnames", "volatile", "include")

Assignment = Mapping[str, str]  # values by the names of variables, in lower case


@dataclass(frozen=True, slots=True)
class Definitions:
    """What defines variables: `blocks` such as map, and the texts of the `set` lines."""

    blocks: Mapping[str, Directive]
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """A condition of a map: its source, a text with variables, has this key."""

    source: str
    text: str


def assignments(
    text: str,
    value: str,
    known: Definitions,
    part: Callable[[str], str] = str,
    depth: int = DEPTH,
) -> Iterator[Assignment]:
    """Values of variables with which a text is `value`, or `part` of it is.

    Variables of maps and sets are followed to those of the request. Which line of a map applies is
    not checked: its default is taken for possible whatever the key is.
    """
    for expanded, keys in islice(expansions(text, known, depth), MOST_TEXTS):
        wanted = parts_of(part(expanded), value)
        if wanted is not None:
            yield from _with_keys(wanted, keys, known, depth)


def _with_keys(
    wanted: Assignment, keys: tuple[Key, ...], known: Definitions, depth: int
) -> Iterator[Assignment]:
    """The assignments that also give the maps' sources their keys."""
    if not keys:
        yield wanted
        return
    key, *others = keys
    text = key.text.removeprefix("\\")
    if key.text.startswith("~"):
        ignore_case = key.text.startswith("~*")
        text = sampled(key.text[1:].removeprefix("*"), wanted, ignore_case=ignore_case)
    for more in islice(assignments(key.source, text, known, depth=depth - 1), MOST):
        yield from _with_keys({**wanted, **more}, tuple(others), known, depth)


def expansions(
    text: str, known: Definitions, depth: int = DEPTH
) -> Iterator[tuple[str, tuple[Key, ...]]]:
    """The text with the values of its maps and sets in place, and the keys that select them."""
    for match in VARIABLE.finditer(text) if depth else ():
        possible = tuple(_values((match[1] or match[2]).lower(), known))
        for value, keys in possible:
            replaced = text[: match.start()] + braced(value) + text[match.end() :]
            for expanded, more in expansions(replaced, known, depth - 1):
                yield expanded, (*keys, *more)
        if possible:
            return
    yield text, ()


def _values(name: str, known: Definitions) -> Iterator[tuple[str, tuple[Key, ...]]]:
    """The texts that a variable may have, each with the key that a map needs for it."""
    yield from ((text, ()) for text in known.sets.get(name, ()))
    block = known.blocks.get(name)
    if block is None or block.name != "map":
        return
    for line in block.block or ():
        if line.name not in MAP_PARAMETERS and len(line.args) == 1:
            is_default = line.name == "default"
            yield line.args[0], () if is_default else (Key(block.args[0], line.name),)


def parts_of(text: str, value: str) -> dict[str, str] | None:
    """The values of a text's variables with which it is `value`; None if there are none.

    Of variables side by side, the first has all.
    """
    names = [(match[1] or match[2]).lower() for match in VARIABLE.finditer(text)]
    plain = VARIABLE.split(text)[:: VARIABLE.groups + 1]
    groups = ["(.*?)" if after else "(.*)" for after in plain[1:]]
    form = "".join(chain.from_iterable(zip(map(re.escape, plain), [*groups, ""], strict=True)))
    match = re.fullmatch(form, value, re.IGNORECASE)
    return dict(zip(names, match.groups(), strict=True)) if match else None
