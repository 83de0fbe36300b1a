"""A value is valid where jsonschema says so."""

import json
from typing import Any

import jsonschema
import pytest

from nginx_llm_lab.backends.llm.schema import Checker
from nginx_llm_lab.backends.llm.schema.example import SchemaError, value

VALUES: list[Any] = [
    *(None, True, False, 0, 1, 1.0, 7, 8.5, 30, -1, "", "a", "abc", "AB-1234", [], [1], [1, 1]),
    *([True, 1], [1, None], [1, "a", 2], {}, {"a": 1}, {"a": 5, "b": 1}, {"b": None}, {"c": "x"}),
]
SCHEMAS: list[Any] = [
    True,
    False,
    {"enum": [1, [1], {"a": 1}]},
    {"type": "integer", "minimum": 1},
    {"type": "string", "pattern": "^a", "maxLength": 2},
    {"allOf": [{"minimum": 7}, True], "anyOf": [{"maximum": 8}, {"type": "string"}]},
    {"oneOf": [{"type": "number"}, {"type": "integer"}, {"type": "array"}]},
    {"prefixItems": [{"type": "integer"}], "items": {"type": ["null", "string"]}, "minItems": 1},
    {"const": True},
    {"type": ["array", "null"], "items": {"type": "integer"}, "uniqueItems": True},
    {"contains": {"const": 1}},
    {"not": {"type": "string"}},
    {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "integer"}},
    {"if": {"type": "string"}},
    {"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "null"}},
    {"propertyNames": {"enum": ["a"]}},
    {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"b": {"maxProperties": 1}}},
    {"exclusiveMaximum": 7, "multipleOf": 0.5},
    {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object", "required": ["a"]}}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_a_value_is_valid_where_jsonschema_says_so(schema: Any):
    """All values, many of them invalid."""
    oracle = jsonschema.Draft202012Validator(schema)

    verdicts = [Checker(schema).allows(schema, value) for value in VALUES]

    assert verdicts == [oracle.is_valid(value) for value in VALUES]


def test_an_older_drafts_limits_and_tuples_are_understood():
    """exclusiveMinimum: true excludes the minimum, an array of items is a tuple."""
    schema = {"minimum": 3, "exclusiveMinimum": True, "items": [{"const": 1}, {"const": 2}]}

    checker = Checker(schema)

    assert [checker.allows(schema, value) for value in (3, 4)] == [False, True]
    assert [checker.allows(schema, value) for value in ([1, 2], [2, 1])] == [True, False]


def test_a_schema_with_too_many_ways_is_refused():
    """Parts that name the next one twice each: 262,144 checks of one number."""
    twice = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(18)}
    schema = {"not": {"not": {"$ref": "#/$defs/0"}}, "$defs": {**twice, "18": {"type": "integer"}}}

    with pytest.raises(ValueError, match=r"#/\$defs"):
        Checker(schema).allows(schema, 1)
    with pytest.raises(SchemaError, match="or its parts can be combined in too many ways"):
        value({"type": "integer", **schema}, 1)
