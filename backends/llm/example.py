"""Generate a JSON value that a JSON Schema allows, for structured output and tool calls."""

import random
import re
import string
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor
from urllib.parse import unquote

from .pattern import PatternError, matches, matching_text

Json = dict[str, object]
# optional properties and items beyond the least are left out below this depth
_DEEP = 4
_TOO_DEEP = 40
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

    Supported are type, enum, const, local $ref, anyOf, oneOf, allOf, and the keywords for objects,
    arrays, strings and numbers; `not`, `if` and similar ones are not. Raises SchemaError for an
    invalid schema, one that allows nothing, and one that is infinitely nested.
    """
    try:
        return _Maker(schema, random.Random(seed)).value(schema, ())
    except (OverflowError, RecursionError, ValueError):
        raise SchemaError("a limit is out of range", ()) from None


class _Maker:
    def __init__(self, root: object, rng: random.Random) -> None:
        self._root = root
        self._rng = rng
        self._left = _MOST

    def _spend(self, amount: int, path: tuple[str, ...]) -> None:
        self._left -= amount
        if self._left < 0:
            raise SchemaError(f"the schema asks for over {_MOST} characters or values", path[:3])

    def value(self, schema: object, path: tuple[str, ...]) -> object:
        self._spend(1, path)
        if schema is True:
            return "anything"
        if not isinstance(schema, dict):
            raise SchemaError("the schema is not an object, or allows nothing", path)
        if len(path) > _TOO_DEEP:
            raise SchemaError("the schema is infinitely nested", path[:3])
        schema = self._resolved(schema, path)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(_list(schema["enum"]), path)
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._alternative(schema, name, path)
        return self._of_type(self._type(schema, path), schema, path)

    def _resolved(self, schema: Json, path: tuple[str, ...]) -> Json:
        """Replace $ref by its target, and allOf by its merged parts."""
        for _ in range(_TOO_DEEP):
            if "$ref" in schema:
                others = {name: part for name, part in schema.items() if name != "$ref"}
                schema = _merged(self._named(schema["$ref"], path), others)
            elif "allOf" in schema:
                others = {name: part for name, part in schema.items() if name != "allOf"}
                for part in _list(schema["allOf"]):
                    if not isinstance(part, dict):
                        raise SchemaError("allOf contains something that is not a schema", path)
                    others = _merged(others, self._resolved(part, path))
                schema = others
            else:
                return schema
        raise SchemaError("$ref is circular", path)

    def _named(self, reference: object, path: tuple[str, ...]) -> Json:
        target = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(
                f'only references within the schema are followed, not "{reference}"', path
            )
        for part in reference[1:].strip("/").split("/") if reference != "#" else ():
            target = _inner(target, unquote(part).replace("~1", "/").replace("~0", "~"))
        if not isinstance(target, dict):
            raise SchemaError(f'"{reference}" names nothing', path)
        return target

    def _alternative(self, schema: Json, name: str, path: tuple[str, ...]) -> object:
        others = {key: part for key, part in schema.items() if key != name}
        options = [option for option in _list(schema[name]) if isinstance(option, dict)]
        if not options:
            raise SchemaError(f"{name} is empty", path)
        self._rng.shuffle(options)
        if any(option.get("type") == "number" for option in options):
            # pydantic's Decimal: the string beside the number is meant to be one too
            options.sort(key=_is_open_text)
        if len(path) > _DEEP:
            # this ends a recursive schema
            options.sort(key=lambda option: "$ref" in option or option.get("type") in _NESTING)
        failures: list[SchemaError] = []
        for option in options:
            try:
                return self.value(_merged(others, self._resolved(option, path)), path)
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
            case "object":
                return self._object(schema, path)
            case "array":
                return self._array(schema, path)
            case "string":
                return self._string(schema, path)
            case "integer" | "number":
                return self._number(kind, schema, path)
            case "boolean":
                return self._rng.random() < 0.5
        return None

    def _object(self, schema: Json, path: tuple[str, ...]) -> Json:
        properties = _mapping(schema.get("properties"))
        required = [str(name) for name in _list(schema.get("required", []))]
        more = schema.get("additionalProperties", True)
        names = [name for name in properties if name in required or len(path) < _DEEP]
        example = {name: self.value(properties[name], (*path, name)) for name in names}
        for name in required:
            if name not in example:
                example[name] = self.value(more, (*path, name))
        least = _whole(schema.get("minProperties"), 0)
        for number in range(least - len(example)):
            name = f"property_{number + 1}"
            example[name] = self.value(more, (*path, name))
        return example

    def _array(self, schema: Json, path: tuple[str, ...]) -> list[object]:
        first, items = _list(schema.get("prefixItems", [])), schema.get("items", True)
        if isinstance(items, list):
            # a tuple, as the drafts up to 7 have it
            first, items = items, schema.get("additionalItems", True)
        elements = [self.value(part, (*path, str(index))) for index, part in enumerate(first)]
        least = _whole(schema.get("minItems"), 0)
        most = _whole(schema.get("maxItems"), least + 3)
        # a tuple is meant to have no more items than it names
        usual = 0 if len(path) > _DEEP or first or items is False else self._rng.randint(1, 2)
        count = min(most, max(least, len(elements) + usual))
        self._spend(count, path)
        unique = schema.get("uniqueItems") is True
        for _ in range(20 * count):
            if len(elements) >= count:
                break
            item = self.value(items, (*path, str(len(elements))))
            if not unique or item not in elements:
                elements.append(item)
        if len(elements) < least:
            raise SchemaError(f"{least} different items cannot be made", path)
        return elements

    def _string(self, schema: Json, path: tuple[str, ...]) -> str:
        least = _whole(schema.get("minLength"), 0)
        most = _whole(schema.get("maxLength"), sys.maxsize)
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
        if isinstance(step, int | float) and not isinstance(step, bool) and step > 0:
            first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
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
    lows = list(_limits(schema, "minimum", "exclusiveMinimum", 1 if is_integer else 1e-6))
    highs = list(_limits(schema, "maximum", "exclusiveMaximum", -1 if is_integer else -1e-6))
    low = max(lows, default=None)
    high = min(highs, default=None)
    if low is None:
        low = 0.0 if high is None or high >= 0 else high - 100
    return low, low + 100 if high is None else high


def _limits(schema: Json, name: str, exclusive: str, nudge: float) -> Iterator[float]:
    limit, other = schema.get(name), schema.get(exclusive)
    if isinstance(limit, int | float) and not isinstance(limit, bool):
        # the older drafts' exclusiveMinimum: true
        yield limit + nudge if other is True else limit
    if isinstance(other, int | float) and not isinstance(other, bool):
        yield other + nudge


def _merged(first: Json, second: Json) -> Json:
    """Merge two schemas: properties and required are joined, else the second takes precedence."""
    merged = {**first, **second}
    if "properties" in first and "properties" in second:
        merged["properties"] = {**_mapping(first["properties"]), **_mapping(second["properties"])}
    if "required" in first and "required" in second:
        merged["required"] = [*_list(first["required"]), *_list(second["required"])]
    return merged


def _is_open_text(option: Json) -> bool:
    return option.get("type") == "string" and not {"enum", "const"} & option.keys()


def _inner(part: object, name: str) -> object:
    """What a step of a $ref leads to: a member by its name, an item by its number."""
    if isinstance(part, list):
        return part[int(name)] if name.isdecimal() and int(name) < len(part) else None
    return _mapping(part).get(name)


def _mapping(part: object) -> Mapping[str, object]:
    return part if isinstance(part, dict) else {}


def _list(part: object) -> list[object]:
    return list(part) if isinstance(part, list) else []


def _whole(part: object, default: int) -> int:
    return int(part) if isinstance(part, int | float) and not isinstance(part, bool) else default
