"""Made-up JSON is what its schema allows."""

import json
import random
import re
from decimal import Decimal
from ipaddress import IPv4Interface, IPv6Network
from typing import Annotated, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    UUID5,
    UUID7,
    Base64Str,
    Base64UrlStr,
    BaseModel,
    Field,
    IPvAnyAddress,
    PostgresDsn,
)

from nginx_llm_lab.backends.llm.schema import example
from nginx_llm_lab.backends.llm.schema.pattern import PatternError, matching_text

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name", "left", "children"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: list[Any] = [
    {},
    {"type": "object"},
    {"type": "string", "minLength": 20, "maxLength": 22},
    {"type": "string", "pattern": r"^[A-Z]{2}-\d{4}(?:/(?:a|b)+)?$"},
    {"type": "string", "pattern": "^[a-z]+$", "minLength": 12, "maxLength": 12},
    {"type": "string", "pattern": "^[a-z]*$", "minLength": 1, "maxLength": 1},
    {"type": "string", "pattern": r"^(?!\.)[\w.]{3,}(?<!\.)@\w+\.[a-z]{2,}$", "format": "email"},
    {"type": "string", "pattern": "[A-Z]", "minLength": 8},
    {"type": "string", "pattern": r"^[A-Z\u00c4-\u00d6]{2}\x2d$"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "date-time"},
    {"type": "integer", "minimum": 7, "maximum": 7},
    {"type": "integer", "exclusiveMinimum": 7, "exclusiveMaximum": 9},
    {"type": "integer", "multipleOf": 5, "minimum": 11, "maximum": 19},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.001},
    {"type": "number", "maximum": -5},
    {"type": ["string", "null"]},
    {"enum": ["a", 1, None]},
    {"const": {"x": 1}},
    {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 5},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False},
    {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "null"}},
    {"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}},
    {"type": "object", "minProperties": 2},
    {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"type": "null"}}}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
    {"anyOf": [{"type": "number", "minimum": 2, "maximum": 1}, {"type": "string"}]},
    {"allOf": [{"type": "integer", "minimum": 50}, {"minimum": 1, "maximum": 60}]},
    {"allOf": [{"type": ["string", "integer"]}, {"type": ["number", "null"]}]},
    {"allOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]},
    {"allOf": [{"anyOf": [{"type": "string"}, {"type": "null"}]}, {"type": "string"}, True]},
    {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5}}},
            {"properties": {"a": {"maximum": 6}}, "required": ["a"]},
        ]
    },
    {"$defs": {"n": {"minimum": 10}}, "$ref": "#/$defs/n", "type": "integer", "minimum": 2},
    {"type": "integer", "enum": ["a", 1, 30, None], "minimum": 10},
    {"enum": [1, "a", None], "anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"type": "integer", "minimum": 10, "anyOf": [{"minimum": 2, "maximum": 12}, {"const": 5}]},
    {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 10}]},
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    {"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 1},
    {"type": "object", "properties": {"a": False, "b": {}}, "required": ["b"]},
    {"type": "integer", "minimum": 0, "maximum": 1, "not": {"const": 0}},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "maxItems": 1},
    {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 1},
    {"type": "integer", "minimum": 9007199254740993, "maximum": 9007199254740993},
    {"type": "integer", "exclusiveMinimum": 0.5, "maximum": 1.2},
    {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-7},
    {"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d).{8,}$"},
    {
        "type": "object",
        "properties": {"unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1}},
        "required": ["unit", "days"],
        "additionalProperties": False,
    },
    TREE,
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_a_value_is_valid_against_its_schema(schema: Any):
    """Twenty seeds each, as jsonschema sees it, formats too."""
    checker = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )

    for seed in range(20):
        checker.validate(example.value(schema, seed))


@pytest.mark.parametrize("seed", range(20))
def test_a_tuple_of_the_older_drafts_has_the_items_that_it_names(seed: int):
    """Zod's JSON Schema of a tuple, as clients in JavaScript send it."""
    schema = {"type": "array", "items": [{"type": "integer"}, {"type": "null"}]}

    value: Any = example.value(schema, seed)

    jsonschema.Draft7Validator(schema).validate(value)
    assert len(value) == 2


class Order(BaseModel):
    """Types whose JSON Schema says less than pydantic asks for."""

    price: Decimal
    share: Annotated[Decimal, Field(gt=0, lt=1)]
    id: UUID5
    trace: UUID7
    address: IPvAnyAddress
    network: IPv6Network
    host: IPv4Interface
    store: PostgresDsn
    picture: Base64Str
    key: Base64UrlStr


@pytest.mark.parametrize("seed", range(20))
def test_pydantics_types_are_followed(seed: int):
    """A Decimal is "a number or a string"; networks and UUIDs have formats of pydantic's own."""
    Order.model_validate(example.value(Order.model_json_schema(), seed))


@pytest.mark.parametrize("path", ["#/properties/a/anyOf/0", "#/definitions/Map%3Ctext%3E"])
def test_a_reference_may_count_or_be_encoded(path: str):
    """As generators in JavaScript write them."""
    schema = {
        "definitions": {"Map<text>": {"const": 1}},
        "properties": {"a": {"anyOf": [{"const": 1}]}, "b": {"$ref": path}},
    }

    assert example.value(schema, 1) == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "allows nothing at the top"),
        ({"type": "object", "required": ["x"], "properties": {"x": 3}}, "at x"),
        ({"type": "text"}, 'unknown type "text"'),
        ({"type": "string", "const": 5}, "no value was found that all of type, const allow"),
        ({"type": "string", "format": "date", "maxLength": 5}, "no value was found that all of"),
        ({"type": "array", "contains": {"const": 7}}, "no value was found that all of"),
        ({"type": "object", "minProperties": 3, "maxProperties": 2}, "no value was found that"),
        ({"$dynamicRef": "#n", "$defs": {"n": {}}}, "$dynamicRef is not followed at the top"),
        ({"$ref": "#/$defs/none"}, '"#/$defs/none" names nothing'),
        ({"$ref": "#/anyOf/1", "anyOf": [{}]}, '"#/anyOf/1" names nothing'),
        ({"$ref": "#"}, "is circular"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number is within the limits"),
        ({"enum": []}, "no value is allowed"),
        ({"type": "string", "pattern": "(?=a)b"}, "no text can be made for the pattern"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "no text can be made for"),
        ({"type": "string", "pattern": "a", "minLength": 10**12}, "no text can be made for"),
        (
            {"type": "object", "required": ["x"], "properties": {"x": {"$ref": "#"}}},
            "the schema is infinitely nested",
        ),
    ],
)
def test_a_schema_that_allows_nothing_is_an_error_with_its_path(schema: Any, message: str):
    """Not a value that would be wrong."""
    with pytest.raises(example.SchemaError, match=re.escape(message)):
        example.value(schema, 1)


@pytest.mark.parametrize("word", ["allOf", "oneOf"])
def test_a_schema_whose_parts_multiply_is_refused(word: str):
    """Each of forty parts refers to the next one twice: a million million ways to read it."""
    parts: Any = {str(n): {word: [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)}
    parts["40"] = {"type": "integer"}

    with pytest.raises(example.SchemaError):
        example.value({"$defs": parts, "$ref": "#/$defs/0"}, 1)


def test_the_same_seed_makes_the_same_value():
    """Another seed makes another one."""
    assert example.value(TREE, 1) == example.value(TREE, 1)
    assert example.value(TREE, 1) != example.value(TREE, 2)


@given(
    st.sampled_from(
        [
            *(r"[a-c]+\d*", r"^(foo|ba[rz]){2}$", r"x?y{1,3}.", r"\w+@\w+\.[a-z]{2,}", "[^a]"),
            "^(?=.*7)[5-8]+(?!x)$",
        ]
    ),
    st.integers(0, 1000),
)
def test_a_made_up_text_matches_its_pattern(pattern: str, seed: int):
    """Literals, classes, groups, alternatives, quantifiers, look-around."""
    assert re.search(pattern, matching_text(pattern, random.Random(seed)))


def test_a_group_may_be_named_as_in_javascript():
    """Zod sends JavaScript's patterns."""
    text = matching_text(r"^(?<year>\d{4})-\(?<x(?<=x)$", random.Random(1))

    assert re.search(r"^\d{4}-\(?<x$", text)


@pytest.mark.parametrize("pattern", ["(", "[", "a(?!b)b", r"(a)\1", "[z-a]"])
def test_a_pattern_beyond_that_is_refused(pattern: str):
    """Rather than a text that does not match."""
    with pytest.raises(PatternError):
        matching_text(pattern, random.Random(1))
