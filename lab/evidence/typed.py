"""Convert JSON to values by type annotations; an error names the invalid field."""

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class MisfitError(ValueError):
    """Malformed JSON, or a value of the wrong type for its field; the message names the field."""


def read(kind: type[T], text: bytes) -> T:
    """Make a value of the type `kind` from JSON text; else MisfitError.

    Keys that a dataclass does not have are ignored, so that older code reads newer folders.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError) as error:  # ValueError: also text that is not UTF-8
        raise _misfit(error) from None


def convert(kind: type[T], value: Any) -> T:
    """Make a value of the type `kind` from JSON that has been parsed; else MisfitError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _misfit(error) from None


def _misfit(error: Exception) -> MisfitError:
    """The error of msgspec, "Expected `int` - at `$.sent`", as "sent: expected `int`"."""
    match = re.fullmatch(r"(.*) - at `\$?\.?(.*)`", str(error), re.DOTALL)
    if not match or not match[2]:
        return MisfitError(str(error))
    return MisfitError(f"{match[2]}: {match[1][0].lower()}{match[1][1:]}")
