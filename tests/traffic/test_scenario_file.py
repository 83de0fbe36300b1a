"""A scenario file needs few keys, and those must agree."""

import pytest

from nginx_llm_lab.backends.llm.settings import Settings
from nginx_llm_lab.traffic.scenario import Lengths
from nginx_llm_lab.traffic.scenario_file import parse
from tests.traffic.yaml_errors import refusal


def test_a_scenario_asks_for_the_model_that_the_backends_serve() -> None:
    """A request for another model would be refused."""
    assert parse("{requests: 1, rate: 1}", "x.yaml").model == Settings("any").model


def test_a_scenario_of_three_lines_is_enough() -> None:
    """Whatever is left out has a documented default."""
    scenario = parse("duration: 10\narrivals: constant\nrate: 2", "dir/three.yaml")

    assert (scenario.name, scenario.rate, scenario.backends) == ("three", 2.0, 3)


def test_a_length_is_a_number_or_a_distribution() -> None:
    """`prompt: 5` is short for a fixed length."""
    text = (
        "{requests: 1, rate: 1, prompt: 5, output: {dist: lognormal, median: 9, sigma: 1, max: 99}}"
    )

    scenario = parse(text, "x.yaml")

    assert scenario.prompt == Lengths(tokens=5)
    assert scenario.output == Lengths("lognormal", median=9, sigma=1, max=99)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fleet: {backend-1: gpu}", "fleet.backend-1 must be one of instant, h100-8b"),
        ("fleet: {backend-1: {slow: 2}}", 'fleet.backend-1 needs "profile", which is missing'),
        ("fleet: [h100-8b]", "fleet must be a mapping such as {backend-1: l40s-8b}, not a list"),
        ("prompt: {dist: uniform, min: 3}", 'prompt uniform needs "max", which is missing in my.'),
        ("prompt: {dist: uniform, min: 3, max: 2}", "prompt.min is larger than prompt.max in my."),
        ("prompt: {dist: fixed, tokens: 3, max: 4}", '"max" is not allowed with prompt fixed in'),
        ("prompt: [1]", "prompt must be a mapping with the keys dist, tokens"),
        ("rate: 1", "neither duration nor requests is given in my.yaml:1:1 | duration: 60"),
        ("requests: 1", 'arrivals poisson needs "rate", which is missing in my.yaml:1:1'),
        ("{requests: 1, arrivals: closed}", 'arrivals closed needs "users", which is missing in'),
        (
            "{requests: 1, arrivals: closed, users: 2, rate: 3}",
            '"rate" is not allowed with arrivals closed in my.yaml:1:49 | keys: users',
        ),
        (
            "{requests: 1, rate: 1, fleet: {backend-4: instant}}",
            'fleet names "backend-4", but there are only backend-1 to backend-3, in my.yaml:1:31',
        ),
    ],
)
def test_keys_that_do_not_agree_are_refused_with_their_place(text: str, says: str) -> None:
    """Each arrival process and each distribution has keys of its own; a backend has a profile."""
    assert says in refusal(text)
