"""Read the fields of a YAML file by type and range; an error names file, line and column.

A reader turns a YAML node into a value; `key` is the node's name in errors.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias, TypeVar

import yaml

from ..errors import UsageError

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)
Reader: TypeAlias = Callable[[yaml.Node, str], _T]


def root_node(text: bytes | str, file: str, keys: Sequence[str]) -> yaml.Node:
    """The YAML of a file whose keys may be `keys`."""
    try:
        loader = yaml.SafeLoader(text if isinstance(text, str) else text.decode("utf-8-sig"))
        loader.name = file
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UsageError(
            f"{error.problem or 'not YAML'} in {_place(file, mark)}", "correct the YAML there"
        ) from error
    except RecursionError as error:
        raise UsageError(f"{file} is nested too deeply", "at most a few levels") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8
        raise UsageError(
            f"{file} is not text: {' '.join(str(error).split())}", "save it as UTF-8"
        ) from error
    if root is None:
        raise UsageError(f"{file} is empty", f"keys: {', '.join(keys)}")
    return root


def fields_of(node: yaml.Node, what: str, allowed: tuple[str, ...]) -> dict[str, yaml.Node]:
    """The nodes of a mapping by their keys, each of which must be in `allowed`."""
    if not isinstance(node, yaml.MappingNode):
        wrong_value(node, what, f"a mapping with the keys {', '.join(allowed)}")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else _shown(key)
        if name not in allowed:
            hint = f"{did_you_mean(name, allowed)} (allowed here: {', '.join(allowed)})"
            fail(key, f'unknown key "{name}" of {what}', hint)
        if name in fields:
            fail(key, f'key "{name}" is given twice', "leave out one of the two")
        fields[name] = value
    return fields


def number(low: float, high: float) -> Reader[float]:
    """A reader of a number within a range."""
    return _in_range(float, low, high, "a number")


def integer(low: int, high: int) -> Reader[int]:
    """A reader of a whole number within a range."""
    return _in_range(int, low, high, "a whole number")


def _in_range(convert: Callable[[str], _N], low: float, high: float, wanted: str) -> Reader[_N]:
    def read(node: yaml.Node, key: str) -> _N:
        try:
            value = convert(_plain(node))
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            wrong_value(node, key, f"{wanted} {range_text(low, high)}")
        return value

    return read


def string(pattern: str = r"(?s).*", wanted: str = "text") -> Reader[str]:
    """A reader of a text that matches `pattern`; errors describe it as `wanted`."""

    def read(node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(pattern, node.value):
            wrong_value(node, key, wanted)
        return str(node.value)

    return read


def choice(*options: str) -> Reader[str]:
    """A reader of one of several words."""

    def read(node: yaml.Node, key: str) -> str:
        if isinstance(node, yaml.ScalarNode) and node.value in options:
            return str(node.value)
        hint = did_you_mean(node.value, options) if isinstance(node, yaml.ScalarNode) else ""
        fail(node, f"{key} must be one of {', '.join(options)}, not {_shown(node)},", hint)

    return read


def flag(node: yaml.Node, key: str) -> bool:
    """Read true or false, in any of YAML's spellings."""
    flags = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    word = _plain(node).lower()
    if word not in flags:
        wrong_value(node, key, "true or false")
    return flags[word]


def list_of(item: Reader[_T]) -> Reader[tuple[_T, ...]]:
    """A reader of a list whose items `item` reads."""

    def read(node: yaml.Node, key: str) -> tuple[_T, ...]:
        if not isinstance(node, yaml.SequenceNode):
            wrong_value(node, key, "a list")
        return tuple(item(entry, f"{key}[{n}]") for n, entry in enumerate(node.value))

    return read


def record(
    make: Callable[..., _T], needed: tuple[str, ...] = (), **readers: Reader[Any]
) -> Reader[_T]:
    """Read a mapping whose keys are the readers' names into `make`'s arguments."""

    def read(node: yaml.Node, key: str) -> _T:
        fields = fields_of(node, key, tuple(readers))
        check_needed(fields, needed, key, node)
        return make(
            **{name: readers[name](value, f"{key}.{name}") for name, value in fields.items()}
        )

    return read


def check_needed(
    fields: Mapping[str, yaml.Node], needed: Sequence[str], what: str, node: yaml.Node
) -> None:
    """Check that a mapping has all the keys it needs."""
    for key in needed:
        if key not in fields:
            fail(node, f'{what} needs "{key}", which is missing', f"add {key}")


def check_variant(
    fields: Mapping[str, yaml.Node],
    chosen: str,
    what: str,
    variants: Mapping[str, tuple[str, ...]],
    node: yaml.Node,
) -> None:
    """Check that all keys of the chosen variant are present, and none of other variants."""
    check_needed(fields, variants[chosen], f"{what} {chosen}", node)
    for key in {key for keys in variants.values() for key in keys} - {*variants[chosen]}:
        if key in fields:
            needs = ", ".join(variants[chosen])
            fail(fields[key], f'"{key}" is not allowed with {what} {chosen}', f"keys: {needs}")


def fail(node: yaml.Node, message: str, hint: str = "") -> NoReturn:
    """Raise UsageError with a message, and the place of a node after it."""
    raise UsageError(f"{message} in {_place(node.start_mark.name, node.start_mark)}", hint)


def wrong_value(node: yaml.Node, key: str, wanted: str) -> NoReturn:
    """Raise UsageError for a node with another value than `wanted`."""
    fail(node, f"{key} must be {wanted}, not {_shown(node)},", f"change {key} in that line")


def _place(file: str, mark: yaml.Mark | None) -> str:
    return f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return f'"{node.value[:40]}"' if node.value else "empty"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _plain(node: yaml.Node) -> str:
    """The text of an unquoted scalar, else "", which no reader accepts."""
    return node.value if isinstance(node, yaml.ScalarNode) and node.style is None else ""


def range_text(low: float, high: float) -> str:
    """A range as errors print it."""
    return f"from {low:,.12g} to {high:,.12g}"


def did_you_mean(word: str, allowed: Sequence[str]) -> str:
    """A hint that names the allowed word nearest to a misspelt one."""
    close = difflib.get_close_matches(word, allowed, 1, 0.5)
    return f'did you mean "{close[0]}"?' if close else "see what is allowed"
