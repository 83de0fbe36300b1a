"""Made-up JSON is what its schema allows."""

import json
import random
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.backends.llm import example
from nginx_llm_lab.backends.llm.pattern import PatternError, matching_text

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
    {"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}},
    {"type": "object", "minProperties": 2},
    {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"type": "null"}}}]},
    {"oneOf": [{"type": "integer"}, {"type": "string"}]},
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


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (False, "allows nothing at the top"),
        ({"type": "object", "required": ["x"], "properties": {"x": 3}}, "at x"),
        ({"type": "text"}, 'unknown type "text"'),
        ({"$ref": "#/$defs/none"}, '"#/$defs/none" names nothing'),
        ({"$ref": "#"}, "is circular"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no number is within the limits"),
        ({"enum": []}, "no value is allowed"),
        ({"type": "string", "pattern": "(?=a)b"}, "no text can be made for the pattern"),
        (
            {"type": "object", "required": ["x"], "properties": {"x": {"$ref": "#"}}},
            "the schema is infinitely nested",
        ),
    ],
)
def test_a_schema_that_allows_nothing_says_where(schema: Any, message: str):
    """Not a value that would be wrong."""
    with pytest.raises(example.SchemaError, match=re.escape(message)):
        example.value(schema, 1)


def test_the_same_seed_makes_the_same_value():
    """Another seed makes another one."""
    assert example.value(TREE, 1) == example.value(TREE, 1)
    assert example.value(TREE, 1) != example.value(TREE, 2)


@given(
    st.sampled_from(
        [r"[a-c]+\d*", r"^(foo|ba[rz]){2}$", r"x?y{1,3}.", r"\w+@\w+\.[a-z]{2,}", "[^a]"]
    ),
    st.integers(0, 1000),
)
def test_a_made_up_text_matches_its_pattern(pattern: str, seed: int):
    """Literals, classes, groups, alternatives and quantifiers."""
    assert re.search(pattern, matching_text(pattern, random.Random(seed)))


@pytest.mark.parametrize("pattern", ["(", "[", "a(?!b)b", r"(a)\1", "[z-a]"])
def test_a_pattern_beyond_that_is_refused(pattern: str):
    """Rather than a text that does not match."""
    with pytest.raises(PatternError):
        matching_text(pattern, random.Random(1))
