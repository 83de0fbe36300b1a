"""Convert JSON data to values by type annotations; an error names the invalid field."""

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from math import isfinite
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Reader: TypeAlias = Callable[[Any, str], Any]

_NUMBER, _WHOLE, _TEXT = "a number", "a whole number", "a text"


class MisfitError(ValueError):
    """A JSON value of the wrong type for its field; the message names field and value."""


def read(kind: type[T], value: Any, where: str = "") -> T:
    """Make the dataclass `kind` from a JSON object. Raises MisfitError, with fields below `where`.

    Keys that the dataclass does not have are ignored, so that older code reads newer folders.
    """
    result: T = reader(kind)(value, where)  # type: ignore[arg-type]  # a class is hashable
    return result


@cache
def reader(kind: Any) -> Reader:
    """The function that converts JSON to a value of an annotated type."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if is_dataclass(kind):
        return _object(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _optional(
            reader(next(argument for argument in arguments if argument is not type(None)))
        )
    if origin is Literal:
        return _one_of(arguments)
    if origin in (tuple, list):
        return _sequence(origin, reader(arguments[0]))
    return _mapping(reader(arguments[1]))


def _misfit(where: str, wanted: str, value: Any) -> MisfitError:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    shown = kinds.get(type(value), repr(value)[:60])
    return MisfitError(f"{where or 'it'} must be {wanted}, not {shown}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _misfit(where, _TEXT, value)
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _misfit(where, "true or false", value)
    return value


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _misfit(where, _WHOLE, value)
    return value


def _number(value: Any, where: str) -> float:
    if type(value) is float and value - value == 0:  # neither infinite nor nan
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
        raise _misfit(where, _NUMBER, value)
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _anything(value: Any, _where: str) -> Any:
    return value


_PLAIN: Mapping[Any, Reader] = {
    str: _text,
    bool: _flag,
    int: _whole,
    float: _number,
    Any: _anything,
}


_BY_TYPE = {str, bool, int, float, type(None)}  # types that need no further check of the value


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _optional(inner: Reader) -> Reader:
    return lambda value, where: None if value is None else inner(value, where)


def _one_of(words: tuple[Any, ...]) -> Reader:
    def read_word(value: Any, where: str) -> Any:
        if value not in words:
            raise _misfit(where, f"one of {', '.join(map(str, words))}", value)
        return value

    return read_word


def _sequence(make: Callable[[Any], Any], inner: Reader) -> Reader:
    def read_list(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise _misfit(where, "a list", value)
        return make(inner(item, f"{where}[{number}]") for number, item in enumerate(value))

    return read_list


def _mapping(inner: Reader) -> Reader:
    def read_mapping(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise _misfit(where, "an object", value)
        return {key: inner(item, f"{where}.{key}") for key, item in value.items()}

    return read_mapping


def _object(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {field.name: reader(hints[field.name]) for field in fields(kind)}
    needed = {
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    }

    by_type = {name for name, hint in hints.items() if set(_kinds(hint)) <= _BY_TYPE}
    seen_shapes: dict[tuple[Any, ...], tuple[str, ...]] = {}  # and the names of their floats

    def read_object(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise _misfit(where, "an object", value)
        shape = (*value, *map(type, value.values()))
        floats = seen_shapes.get(shape)
        if floats is not None and all(isfinite(value[name]) for name in floats):
            return kind(**value)  # nearly every line of a log: nothing to check or to convert
        prefix = f"{where}." if where else ""
        if missing := sorted(needed - value.keys()):
            raise MisfitError(f"{prefix}{missing[0]} is missing")
        made = {}
        for key, item in value.items():
            if key in readers:
                made[key] = readers[key](item, prefix + key)
        if by_type >= value.keys() and all(made[key] is value[key] for key in made):
            seen_shapes[shape] = tuple(key for key in value if type(value[key]) is float)
        return kind(**made)

    return read_object
