"""JSON becomes a value by its type annotations, or the field that does not fit is named."""

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

    assert typed.read(Outer, data) == Outer("x", 0, 2.0, (Inner(1.0),), {"k": 3})


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({}, "run.name is missing"),
        ({"name": None}, "run.name must be a text, not null"),
        ({"name": "x", "count": True}, "run.count must be a whole number, not True"),
        ({"name": "x", "count": 1.5}, "run.count must be a whole number, not 1.5"),
        ({"name": "x", "maybe": "soon"}, "run.maybe must be a number, not 'soon'"),
        ({"name": "x", "maybe": 10**400}, "run.maybe must be a number"),
        ({"name": "x", "maybe": float("inf")}, "run.maybe must be a number, not inf"),
        ({"name": "x", "parts": {}}, "run.parts must be a list, not an object"),
        ({"name": "x", "parts": [{"size": 1}, {}]}, "run.parts[1].size is missing"),
        ({"name": "x", "table": []}, "run.table must be an object, not a list"),
        ({"name": "x", "table": {"k": None}}, "run.table.k must be a whole number, not null"),
        ({"name": "x", "kind": "c"}, "run.kind must be one of a, b, not 'c'"),
        ([], "run must be an object, not a list"),
    ],
)
def test_an_invalid_field_is_named(data: Any, wrong: str) -> None:
    """The field, what it must be, what it is."""
    with pytest.raises(typed.MisfitError) as refusal:
        typed.read(Outer, data, "run")

    assert str(refusal.value).startswith(wrong)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"name": "x", "maybe": 1.5}, {"name": "x", "maybe": float("nan")}),
        ({"name": "x", "kind": "a"}, {"name": "x", "kind": "c"}),
        ({"name": "x", "count": 1}, {"name": "x", "count": True}),
        ({"name": "x", "parts": []}, {"name": "x", "parts": [{}]}),
    ],
)
def test_an_object_like_one_before_is_still_checked(good: Any, bad: Any) -> None:
    """Its keys and types alone do not make it valid."""
    for _ in range(2):
        assert typed.read(Outer, good).name == "x"

    with pytest.raises(typed.MisfitError):
        typed.read(Outer, bad)
