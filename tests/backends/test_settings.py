"""The environment."""

import pytest

from nginx_llm_lab.backends.llm.profiles import PROFILES
from nginx_llm_lab.backends.llm.settings import Settings, SettingsError, from_environment


def test_an_empty_variable_counts_as_absent():
    """Compose passes unset variables as empty ones."""
    settings = from_environment({"BACKEND_NAME": "b", "PORT": "", "PROFILE": " "})

    assert settings == Settings("b")


def test_settings_are_read_from_the_environment():
    """All of them, in their own units."""
    settings = from_environment(
        {"BACKEND_NAME": "b", "PORT": "81", "PROFILE": "l40s-8b", "TIME_SCALE": "2", "SEED": "7"}
    )

    assert settings == Settings("b", port=81, profile=PROFILES["l40s-8b"], time_scale=2.0, seed=7)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BACKEND_NAME", "a b"),
        ("BACKEND_NAME", "a\r\nX: y"),
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PROFILE", "h200"),
        ("TIME_SCALE", "0"),
        ("TIME_SCALE", "nan"),
        ("TIME_SCALE", "fast"),
        ("BODY_LIMIT", "-1"),
        ("SEED", "1e3"),
        ("MAX_NUM_SEQS", "0"),
        ("QUEUE_LIMIT", "few"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(variable: str, value: str):
    """What, which one, what is allowed."""
    with pytest.raises(SettingsError) as caught:
        from_environment({"BACKEND_NAME": "b", variable: value})

    assert str(caught.value).startswith(f'{variable}="{value}": ')


def test_limits_replace_those_of_the_profile():
    """An empty variable, which compose.yaml gives, keeps the profile's."""
    given = {"PROFILE": "h100-8b", "MAX_NUM_SEQS": "4", "QUEUE_LIMIT": "9", "KV_BLOCKS": ""}
    profile = from_environment({"BACKEND_NAME": "b", **given}).profile

    assert (profile.max_num_seqs, profile.max_queued, profile.kv_blocks) == (4, 9, 24_576)
