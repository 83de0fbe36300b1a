"""The error for a scenario file that is wrong."""

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.traffic.scenario_file import parse


def refusal(text: str) -> str:
    """The message and hint with which `text` is refused."""
    with pytest.raises(UsageError) as caught:
        parse(text, "my.yaml")
    return f"{caught.value.message} | {caught.value.hint}"
