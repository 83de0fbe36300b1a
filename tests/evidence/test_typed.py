"""JSON becomes a value by its type annotations, or the field that does not fit is named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from nginx_llm_lab.evidence import typed


@dataclass(frozen=True)
class Inner:
    """A part."""

    size: float


@dataclass(frozen=True)
class Outer:
    """One field of each kind."""

    name: str
    count: int = 0
    maybe: float | None = None
    parts: tuple[Inner, ...] = ()
    table: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["a", "b"] = "a"


def test_values_are_made_as_annotated() -> None:
    """Lists become tuples, whole numbers floats where those are asked for; others are ignored."""
    data = {"name": "x", "maybe": 2, "parts": [{"size": 1}], "table": {"k": 3}, "new": True}
    made = Outer("x", 0, 2.0, (Inner(1.0),), {"k": 3})

    assert typed.convert(Outer, data) == made
    assert typed.read(Outer, json.dumps(data).encode()) == made


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({}, "Object missing required field `name`"),
        ({"name": None}, "name: expected `str`, got `null`"),
        ({"name": "x", "count": True}, "count: expected `int`, got `bool`"),
        ({"name": "x", "count": 1.5}, "count: expected `int`, got `float`"),
        ({"name": "x", "maybe": "soon"}, "maybe: expected `float | null`, got `str`"),
        ({"name": "x", "parts": {}}, "parts: expected `array`, got `object`"),
        ({"name": "x", "parts": [{"size": 1}, {}]}, "parts[1]: object missing required field"),
        ({"name": "x", "table": []}, "table: expected `object`, got `array`"),
        ({"name": "x", "table": {"k": None}}, "table[...]: expected `int`, got `null`"),
        ({"name": "x", "kind": "c"}, "kind: invalid enum value 'c'"),
        ([], "Expected `object`, got `array`"),
    ],
)
def test_an_invalid_field_is_named(data: Any, wrong: str) -> None:
    """The field, what it must be, what it is."""
    for make in (typed.convert, lambda kind, data: typed.read(kind, json.dumps(data).encode())):
        with pytest.raises(typed.MisfitError) as refusal:
            make(Outer, data)

        assert str(refusal.value).startswith(wrong)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"name": "x"',
        b'{"name": "\xff"}',
        b'{"name": "x", "maybe": NaN}',
        b'{"name": "x", "maybe": 1e400}',
        b"[" * 100_000,
    ],
)
def test_malformed_json_is_no_value(text: bytes) -> None:
    """Truncated, not UTF-8, no number of JSON's, too large, nested too deeply."""
    with pytest.raises(typed.MisfitError):
        typed.read(Outer, text)
