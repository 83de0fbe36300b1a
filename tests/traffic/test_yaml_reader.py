"""A YAML file is read whole, or refused with its line and what is allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.traffic.scenario_file import parse
from tests.traffic.yaml_errors import refusal


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rats: 3", 'unknown key "rats" of a scenario in my.yaml:1:1 | did you mean "rate"?'),
        ("rate: 3\nrate: 4", 'key "rate" is given twice in my.yaml:2:1'),
        ("rate: fast", 'rate must be a number from 0.001 to 100,000, not "fast", in my.yaml:1:7'),
        ("rate: '3'", 'rate must be a number from 0.001 to 100,000, not "3", in my.yaml:1:7'),
        ("rate: -1", 'not "-1", in my.yaml:1:7'),
        ("rate: .nan", 'not ".nan", in my.yaml:1:7'),
        ("seed: 1.5", "seed must be a whole number from 0 to"),
        ("requests:", "requests must be a whole number from 1 to 10,000,000, not empty, in my.ya"),
        ("stream: maybe", 'stream must be true or false, not "maybe", in my.yaml:1:9'),
        ("name: a b", 'name must be letters, digits, _, . and -, not "a b", in my.yaml:1:7'),
        (
            "profile: h100",
            "profile must be one of instant, h100-8b, l40s-8b, slow-8b, cpu-small, h100x4-70b",
        ),
        ("profile: h100", 'did you mean "h100-8b"?'),
        ("[2]: 1", 'unknown key "a list" of a scenario in my.yaml:1:1'),
        ("", "my.yaml is empty | keys: name, about,"),
        ("a: b: c", "mapping values are not allowed here in my.yaml:1:5"),
        ("rate: 1\n---\nrate: 2", "but found another document in my.yaml:2:1"),
        ("a: \x00", "my.yaml is not text"),
        ("just words", "a scenario must be a mapping with the keys name, about"),
        ("[" * 5000, "my.yaml is nested too deeply"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place_and_what_is_allowed(text: str, says: str) -> None:
    """File, line and column lead to the spot; the hint says what would be right."""
    assert says in refusal(text)


def test_a_file_that_is_not_utf8_is_refused() -> None:
    """A binary file is no scenario."""
    with pytest.raises(UsageError, match=r"my\.yaml is not text"):
        parse(b"\xff\xfe\x00rate", "my.yaml")


_YAML = st.text(alphabet="ab1.:{}[]&*!%,|>?-#~'\"\n\t ", max_size=20)
_KEYS = st.sampled_from(["rate", "prompt", "fleet", "timeline", "tenants", "at", "do", "dist"])
_VALUES = st.one_of(_YAML, st.integers(), st.floats(), st.none(), st.booleans())


@given(st.one_of(st.binary(max_size=60), _YAML, st.dictionaries(_KEYS, _VALUES).map(str)))
def test_whatever_the_file_holds_only_a_usage_error_is_raised(text: bytes | str) -> None:
    """No input ends in a traceback, and every refusal names the file."""
    with pytest.raises(UsageError, match=r"fuzz\.yaml"):
        parse(text, "fuzz.yaml")
