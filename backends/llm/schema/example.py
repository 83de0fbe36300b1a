"""Generate a JSON value that a JSON Schema allows, for structured output and tool calls."""

import random
import re
import string
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, floor, inf, nextafter
from typing import TypeGuard

from . import Checker, Json, elements, items, members, same, target
from .pattern import PatternError, matches, matching_text

# optional properties and items beyond the least are left out below this depth
_DEEP = 4
_TOO_DEEP = 40
_TRIES = 30  # values made for a schema until one is allowed
_MOST = 20_000  # values, items and characters in all: a schema may ask for millions
_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "idn-email": "someone@example.com",
    "hostname": "host.example.com",
    "uri": "https://example.com/path",
    "url": "https://example.com/path",
    "uri-reference": "/path",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    # pydantic's own
    "name-email": "someone@example.com",
    "multi-host-uri": "postgresql://host.example.com/path",
    "ipvanyaddress": "192.0.2.1",
    **dict.fromkeys(("ipv4network", "ipv4interface"), "192.0.2.0/24"),
    **dict.fromkeys(("ipv6network", "ipv6interface"), "2001:db8::/32"),
    **dict.fromkeys(("ipvanynetwork", "ipvanyinterface"), "192.0.2.0/24"),
    **dict.fromkeys(("base64", "base64url", "byte"), "dGV4dA=="),
    "color": "#1e90ff",
}
_UUID = re.compile("uuid([1-8])?")


class SchemaError(Exception):
    """A schema for which no value can be made; `path` is the place in the value."""

    def __init__(self, message: str, path: Sequence[str]) -> None:
        super().__init__(f"{message} at {'.'.join(path) or 'the top'}")


def value(schema: object, seed: int) -> object:
    """Generate a value that the schema allows; the same seed gives the same value.

    Followed are type, enum, const, local $ref, anyOf, oneOf, allOf, and the keywords for objects,
    arrays, strings and numbers; `not`, `if` and similar ones are met by further attempts. Raises
    SchemaError for an invalid schema, one that allows nothing or for which no attempt succeeds,
    and one that is infinitely nested.
    """
    try:
        return _Maker(schema, random.Random(seed)).value(schema, ())
    except (OverflowError, RecursionError, ValueError):
        reason = "a limit is out of range, or its parts can be combined in too many ways"
        raise SchemaError(reason, ()) from None


class _Maker:
    def __init__(self, root: object, rng: random.Random) -> None:
        self._root = root
        self._checker = Checker(root)
        self._rng = rng
        self._left = _MOST

    def _spend(self, amount: int, path: tuple[str, ...]) -> None:
        self._left -= amount
        if self._left < 0:
            raise SchemaError(f"the schema asks for over {_MOST} characters or values", path[:3])

    def value(self, schema: object, path: tuple[str, ...], sparse: bool = False) -> object:
        """Make a value; a sparse object has only some of its optional properties."""
        if schema is True:
            self._spend(1, path)
            return "anything"
        if not isinstance(schema, dict):
            raise SchemaError("the schema is not an object, or allows nothing", path)
        if len(path) > _TOO_DEEP:
            raise SchemaError("the schema is infinitely nested", path[:3])
        if "$dynamicRef" in schema:
            raise SchemaError("$dynamicRef is not followed", path)
        resolved = self._resolved(schema, path)
        for attempt in range(_TRIES):
            self._spend(1, path)
            candidate = self._candidate(resolved, path, sparse or attempt > 0)
            if self._checker.allows(schema, candidate):
                return candidate
        raise SchemaError(f"no value was found that all of {', '.join(resolved)} allow", path)

    def _candidate(self, schema: Json, path: tuple[str, ...], sparse: bool) -> object:
        """Make a value that the main keywords allow; others, such as `not`, may forbid it."""
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            options = elements(schema["enum"])
            allowed = [option for option in options if self._checker.allows(schema, option)]
            return self._choice(allowed, path)
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._alternative(schema, name, path, sparse)
        kind = self._type(schema, path)
        return (
            self._object(schema, path, sparse)
            if kind == "object"
            else self._of_type(kind, schema, path)
        )

    def _resolved(self, schema: Json, path: tuple[str, ...]) -> Json:
        """Replace $ref by its target, and allOf by its merged parts."""
        for _ in range(_TOO_DEEP):
            self._spend(1, path)
            if "$ref" in schema:
                others = {name: part for name, part in schema.items() if name != "$ref"}
                schema = _merged(self._referenced(schema["$ref"], path), others)
            elif "allOf" in schema:
                others = {name: part for name, part in schema.items() if name != "allOf"}
                for part in elements(schema["allOf"]):
                    others = _merged(others, self._resolved(self._schema(part, path), path))
                schema = others
            else:
                return schema
        raise SchemaError("$ref is circular", path)

    def _schema(self, part: object, path: tuple[str, ...]) -> Json:
        if part is not True and not isinstance(part, dict):
            raise SchemaError("the schema is not an object, or allows nothing", path)
        return part if isinstance(part, dict) else {}

    def _referenced(self, reference: object, path: tuple[str, ...]) -> Json:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(
                f'only references within the schema are followed, not "{reference}"', path
            )
        part = target(reference, self._root)
        if not isinstance(part, dict):
            raise SchemaError(f'"{reference}" names nothing', path)
        return part

    def _alternative(self, schema: Json, name: str, path: tuple[str, ...], sparse: bool) -> object:
        others = {key: part for key, part in schema.items() if key != name}
        options = [
            self._schema(option, path) for option in elements(schema[name]) if option is not False
        ]
        if not options:
            raise SchemaError(f"{name} is empty", path)
        self._rng.shuffle(options)
        if any(option.get("type") == "number" for option in options):
            # pydantic's Decimal is a number or a string that holds one: prefer the number
            options.sort(key=_is_open_text)
        if len(path) > _DEEP:
            # prefer alternatives without nesting, which end a recursive schema
            options.sort(key=lambda option: "$ref" in option or option.get("type") in _NESTING)
        failures: list[SchemaError] = []
        for option in options:
            try:
                return self.value(_merged(others, self._resolved(option, path)), path, sparse)
            except SchemaError as error:
                failures.append(error)
        raise failures[0]

    def _type(self, schema: Json, path: tuple[str, ...]) -> str:
        implied = next((kind for word, kind in _IMPLIED.items() if word in schema), "string")
        kind = schema.get("type", implied)
        if isinstance(kind, list):
            kinds = [name for name in kind if name != "null" or len(path) > _DEEP] or kind
            kind = "null" if len(path) > _DEEP and "null" in kinds else self._choice(kinds, path)
        if not isinstance(kind, str) or kind not in KINDS:
            raise SchemaError(f'unknown type "{kind}"', path)
        return kind

    def _of_type(self, kind: str, schema: Json, path: tuple[str, ...]) -> object:
        match kind:
            case "array":
                return self._array(schema, path)
            case "string":
                return self._string(schema, path)
            case "integer" | "number":
                return self._number(kind, schema, path)
            case "boolean":
                return self._rng.random() < 0.5
        return None

    def _object(self, schema: Json, path: tuple[str, ...], sparse: bool) -> Json:
        properties = members(schema.get("properties"))
        required = [str(name) for name in elements(schema.get("required", []))]
        more = schema.get("additionalProperties", True)
        names = [
            name
            for name in properties
            if name in required
            or (
                properties[name] is not False
                and len(path) < _DEEP
                and not (sparse and self._rng.random() < 0.5)
            )
        ]
        example = {name: self.value(properties[name], (*path, name)) for name in names}
        for name in required:
            if name not in example:
                example[name] = self.value(more, (*path, name))
        least = _integer(schema.get("minProperties"), 0)
        for number in range(least - len(example)):
            name = f"property_{number + 1}"
            example[name] = self.value(more, (*path, name))
        return example

    def _array(self, schema: Json, path: tuple[str, ...]) -> list[object]:
        first, others = items(schema)
        least = _integer(schema.get("minItems"), 0)
        most = max(0, _integer(schema.get("maxItems"), max(least, len(first)) + 3))
        array = [self.value(part, (*path, str(index))) for index, part in enumerate(first[:most])]
        # a tuple gets no items beyond those that its schema lists
        usual = 0 if len(path) > _DEEP or first or others is False else self._rng.randint(1, 2)
        count = min(most, max(least, len(array) + usual))
        self._spend(count, path)
        unique = schema.get("uniqueItems") is True
        for _ in range(20 * count):
            if len(array) >= count:
                break
            item = self.value(others, (*path, str(len(array))))
            if not unique or not any(same(item, other) for other in array):
                array.append(item)
        if len(array) < least:
            raise SchemaError(f"{least} different items cannot be made", path)
        return array

    def _string(self, schema: Json, path: tuple[str, ...]) -> str:
        least = _integer(schema.get("minLength"), 0)
        most = _integer(schema.get("maxLength"), sys.maxsize)
        if least > most:
            raise SchemaError("minLength is over maxLength", path)
        pattern, formatted = schema.get("pattern"), self._formatted(schema.get("format"))
        if formatted and (not isinstance(pattern, str) or matches(pattern, formatted)):
            return formatted
        if isinstance(pattern, str):
            try:
                return matching_text(pattern, self._rng, least, most)
            except PatternError as error:
                raise SchemaError(str(error), path) from None
        length = max(least, min(most, self._rng.randint(3, 9)))
        self._spend(length, path)
        return "".join(self._rng.choices(string.ascii_lowercase, k=length))

    def _formatted(self, form: object) -> str:
        """The example of a format; empty for an unknown one."""
        if not isinstance(form, str):
            return ""
        if kind := _UUID.fullmatch(form):
            text = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
            # Python knows only the versions up to 5
            return f"{text[:14]}{kind[1] or 4}{text[15:]}"
        return _FORMATS.get(form, "")

    def _number(self, kind: str, schema: Json, path: tuple[str, ...]) -> float:
        is_integer = kind == "integer"
        low, high = _bounds(schema, is_integer)
        step = schema.get("multipleOf", 1 if is_integer else None)
        if _is_number(step) and step > 0:
            first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
            if is_integer and isinstance(step, int):
                # exact, also where a float is not
                first, last = -(-ceil(low) // step), floor(high) // step
            if first > last:
                raise SchemaError("no number is within the limits", path)
            multiple = self._rng.randint(first, last) * step
            return int(multiple) if is_integer else multiple
        if low > high:
            raise SchemaError("no number is within the limits", path)
        # two decimals where they fit: a price, a share
        number = round(self._rng.uniform(low, high), 2)
        return number if low <= number <= high else self._rng.uniform(low, high)

    def _choice(self, options: Sequence[object], path: tuple[str, ...]) -> object:
        if not options:
            raise SchemaError("no value is allowed", path)
        return self._rng.choice(options)


_NESTING = ("object", "array")
KINDS = ("object", "array", "string", "integer", "number", "boolean", "null")
_IMPLIED = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minimum": "number",
    "maximum": "number",
    "multipleOf": "number",
}


def _bounds(schema: Json, is_integer: bool) -> tuple[float, float]:
    low = max(_limits(schema, "minimum", "exclusiveMinimum", is_integer, 1), default=None)
    high = min(_limits(schema, "maximum", "exclusiveMaximum", is_integer, -1), default=None)
    if low is None:
        low = 0.0 if high is None or high >= 0 else high - 100
    return low, low + 100 if high is None else high


def _limits(
    schema: Json, name: str, exclusive: str, is_integer: bool, side: int
) -> Iterator[float]:
    """The limits on one side, each itself allowed."""
    limit, other = schema.get(name), schema.get(exclusive)
    if _is_number(limit):
        # the older drafts' exclusiveMinimum: true
        yield _beyond(limit, is_integer, side) if other is True else limit
    if _is_number(other):
        yield _beyond(other, is_integer, side)


def _beyond(limit: float, is_integer: bool, side: int) -> float:
    if is_integer:
        return floor(limit) + 1 if side > 0 else ceil(limit) - 1
    return nextafter(limit, side * inf)


def _merged(first: Json, second: Json) -> Json:
    """Merge two schemas; of a keyword that cannot be merged, the second's value is used."""
    merged = {**first, **second}
    for word in first.keys() & second.keys() & _JOINED.keys():
        merged[word] = _JOINED[word](first[word], second[word])
    return merged


def _both_properties(first: object, second: object) -> object:
    one, other = members(first), members(second)
    shared = {name: {"allOf": [one[name], other[name]]} for name in one.keys() & other.keys()}
    return {**one, **other, **shared}


def _both_types(first: object, second: object) -> object:
    """The types in both; an integer is a number too."""
    one, other = (elements(kinds) or [kinds] for kinds in (first, second))
    shared = [kind for kind in one if kind in other or (kind == "integer" and "number" in other)]
    shared += [kind for kind in other if kind == "integer" and "number" in one]
    return shared or second


def _both_values(first: object, second: object) -> object:
    return [one for one in elements(first) if any(same(one, other) for other in elements(second))]


def _larger(first: object, second: object) -> object:
    return max(first, second) if _is_number(first) and _is_number(second) else second


def _smaller(first: object, second: object) -> object:
    return min(first, second) if _is_number(first) and _is_number(second) else second


_JOINED: Mapping[str, Callable[[object, object], object]] = {
    "properties": _both_properties,
    "required": lambda first, second: [*elements(first), *elements(second)],
    "type": _both_types,
    "enum": _both_values,
    **dict.fromkeys(("minimum", "minLength", "minItems", "minProperties"), _larger),
    **dict.fromkeys(("maximum", "maxLength", "maxItems", "maxProperties"), _smaller),
}


def _is_open_text(option: Json) -> bool:
    return option.get("type") == "string" and not {"enum", "const"} & option.keys()


def _integer(part: object, default: int) -> int:
    return int(part) if _is_number(part) else default


def _is_number(part: object) -> TypeGuard[float]:
    return isinstance(part, int | float) and not isinstance(part, bool)
