"""A scenario is found by its name or its path."""

from pathlib import Path

import pytest

from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.traffic.scenario_choice import load, names


@pytest.mark.parametrize("name", names())
def test_every_built_in_scenario_is_read(name: str) -> None:
    """Each names itself after its file and says what it is about."""
    scenario = load(name)

    assert (scenario.name, bool(scenario.about)) == (name, True)


def test_the_promised_scenarios_are_there() -> None:
    """Issue by issue: one scenario for each question about a fleet, and one that breaks it."""
    assert " ".join(names()) == (
        "bursts heavy_tail long_prompts mixed_fleet multi_turn one_nat outages scale_out "
        "shared_prompts slow_replica uniform_chat"
    )


def test_a_misspelt_name_is_guessed() -> None:
    """`heavytail` is near enough to heavy_tail."""
    with pytest.raises(UsageError) as caught:
        load("heavytail")

    assert caught.value.hint.startswith('did you mean "heavy_tail"?')


def test_a_scenario_is_read_by_its_path(tmp_path: Path) -> None:
    """A user's own file needs no place in the package."""
    file = tmp_path / "mine.yaml"
    file.write_text("{requests: 7, rate: 1}")

    assert load(str(file)).requests == 7


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    """The message has the path and the system's reason."""
    with pytest.raises(UsageError, match=r"none\.yaml.*No such file"):
        load(str(tmp_path / "none.yaml"))
