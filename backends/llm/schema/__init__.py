"""Check values against a JSON Schema, except for formats and unevaluated parts."""

from collections.abc import Callable, Iterator, Mapping
from operator import ge, gt, le, lt
from typing import Any
from urllib.parse import unquote

from .pattern import matches

Json = dict[str, object]

_MOST = 200_000  # checks: parts that refer to each other may be combined in any number of ways
_KINDS = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
# each limit: the type of the values that it limits, and how their size compares with it
_LIMITS: Mapping[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("number", ge),
    "maximum": ("number", le),
    "exclusiveMinimum": ("number", gt),
    "exclusiveMaximum": ("number", lt),
    "minLength": ("string", ge),
    "maxLength": ("string", le),
    "minItems": ("array", ge),
    "maxItems": ("array", le),
    "minProperties": ("object", ge),
    "maxProperties": ("object", le),
}


class Checker:
    """Checks values against the schemas within `root`, in which each $ref is looked up."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._left = _MOST

    def allows(self, schema: object, value: Any) -> bool:
        """Whether the value is valid; raises ValueError if that takes too many checks."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(schema)
        if not isinstance(schema, dict):
            return schema is True

        def valid(word: str) -> Iterator[bool]:
            return (self.allows(part, value) for part in elements(schema[word]))

        branch = "then" if "if" in schema and self.allows(schema["if"], value) else "else"
        return (
            ("type" not in schema or any(_is(value, kind) for kind in _types(schema["type"])))
            and ("const" not in schema or same(value, schema["const"]))
            and ("enum" not in schema or any(same(value, one) for one in elements(schema["enum"])))
            and ("$ref" not in schema or self.allows(target(schema["$ref"], self._root), value))
            and ("allOf" not in schema or all(valid("allOf")))
            and ("anyOf" not in schema or any(valid("anyOf")))
            and ("oneOf" not in schema or sum(valid("oneOf")) == 1)
            and ("not" not in schema or not self.allows(schema["not"], value))
            and ("if" not in schema or self.allows(schema.get(branch, True), value))
            and all(_within(schema, word, value) for word in _LIMITS.keys() & schema.keys())
            and _fits(schema, value)
            and all(self.allows(part, inner) for part, inner in _inside(schema, value))
            and ("contains" not in schema or self._contains(schema["contains"], value))
        )

    def _contains(self, schema: object, value: object) -> bool:
        return not isinstance(value, list) or any(self.allows(schema, item) for item in value)


def target(reference: object, root: object) -> object:
    """The schema that a $ref names; None if it names nothing within `root`."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    for part in reference[1:].strip("/").split("/") if reference != "#" else ():
        root = _step(root, unquote(part).replace("~1", "/").replace("~0", "~"))
    return root


def _step(part: object, name: str) -> object:
    """What a step of a $ref leads to: a member by its name, an item by its number."""
    if isinstance(part, list):
        return part[int(name)] if name.isdecimal() and int(name) < len(part) else None
    return members(part).get(name)


def members(part: object) -> Mapping[str, object]:
    """The members of what should be an object."""
    return part if isinstance(part, dict) else {}


def elements(part: object) -> list[object]:
    """The elements of what should be an array."""
    return list(part) if isinstance(part, list) else []


def items(schema: Json) -> tuple[list[object], object]:
    """The schemas of an array's first items, and that of all others."""
    others = schema.get("items", True)
    if isinstance(others, list):
        # a tuple, as the drafts up to 7 have it
        return others, schema.get("additionalItems", True)
    return elements(schema.get("prefixItems")), others


def same(first: object, second: object) -> bool:
    """Whether two values are equal in JSON, where true is not 1."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def _types(kinds: object) -> list[object]:
    return elements(kinds) or [kinds]


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), "object")


def _is(value: Any, kind: object) -> bool:
    if kind == "integer":
        return _kind(value) == "number" and bool(value == int(value))
    return _kind(value) == kind


def _within(schema: Json, word: str, value: Any) -> bool:
    kind, compare = _LIMITS[word]
    limit = schema[word]
    if limit is True:
        # the older drafts say exclusiveMinimum: true beside a minimum
        limit = schema.get({"exclusiveMinimum": "minimum"}.get(word, "maximum"))
    if _kind(value) != kind or _kind(limit) != "number":
        return True
    return compare(value if kind == "number" else len(value), limit)


def _fits(schema: Json, value: Any) -> bool:
    """Check the other keywords that concern only the value itself."""
    match value:
        case str():
            pattern = schema.get("pattern")
            return not isinstance(pattern, str) or matches(pattern, value)
        case list():
            repeats = (same(item, other) for n, item in enumerate(value) for other in value[:n])
            return schema.get("uniqueItems") is not True or not any(repeats)
        case dict():
            needed = [schema.get("required")]
            needed += [members(schema.get("dependentRequired")).get(name) for name in value]
            return all(name in value for names in needed for name in elements(names))
    step = schema.get("multipleOf")
    if _kind(value) != "number" or not isinstance(step, int | float) or not step:
        return True
    return bool(value / step == round(value / step))


def _inside(schema: Json, value: Any) -> Iterator[tuple[object, object]]:
    """Each part of a value with a schema for it."""
    if isinstance(value, list):
        first, others = items(schema)
        yield from zip([*first, *[others] * len(value)], value, strict=False)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield schema.get("propertyNames", True), name
            yield members(schema.get("dependentSchemas")).get(name, True), value
            yield from ((part, inner) for part in _of_property(schema, name))


def _of_property(schema: Json, name: str) -> list[object]:
    named = members(schema.get("properties"))
    patterns = members(schema.get("patternProperties"))
    parts = [named[name]] if name in named else []
    parts += [part for pattern, part in patterns.items() if matches(pattern, name)]
    return parts or [schema.get("additionalProperties", True)]
