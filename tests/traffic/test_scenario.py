"""A scenario file is read whole, or refused with its line and what is allowed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.backends.llm.profiles import Limits
from nginx_llm_lab.backends.llm.settings import Settings
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.traffic.scenario import (
    Event,
    Lengths,
    Machine,
    load,
    machines,
    names,
    parse,
)


def refusal(text: str) -> str:
    """The message and hint with which `text` is refused."""
    with pytest.raises(UsageError) as caught:
        parse(text, "my.yaml")
    return f"{caught.value.message} | {caught.value.hint}"


def test_a_scenario_asks_for_the_model_that_the_backends_serve() -> None:
    """A request for another model would be refused."""
    assert parse("{requests: 1, rate: 1}", "x.yaml").model == Settings("any").model


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


def test_the_fleet_covers_backends_that_come_later() -> None:
    """A scale event to three makes backend-3 part of the fleet."""
    text = """
        {requests: 1, rate: 1, backends: 2, profile: l40s-8b,
         fleet: {backend-1: h100-8b, backend-3: {profile: cpu-small, slow: 2, kv_blocks: 64}},
         timeline: [{at: 1, do: scale, backends: 3}]}
    """

    fleet = machines(parse(text, "x.yaml"))

    assert fleet == {
        "backend-1": Machine("h100-8b"),
        "backend-2": Machine("l40s-8b"),
        "backend-3": Machine("cpu-small", 2.0, Limits(kv_blocks=64)),
    }


def test_the_timeline_is_sorted_by_time() -> None:
    """Events may be written in any order."""
    text = """
        {duration: 9, rate: 1, timeline: [
         {at: 5, do: heal}, {at: 2, do: fault, backend: backend-2, kind: slow, value: 4},
         {at: 7, do: use, method: hash, key: $request_uri, weights: [3, 1, 1]},
         {at: 6, do: reload}]}
    """

    assert parse(text, "x.yaml").timeline == (
        Event(2, "fault", "backend-2", "slow", 4.0),
        Event(5, "heal"),
        Event(6, "reload"),
        Event(7, "use", method="hash", key="$request_uri", weights=(3, 1, 1)),
    )


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
        ("fleet: {backend-1: gpu}", "fleet.backend-1 must be one of instant, h100-8b"),
        ("fleet: {backend-1: {slow: 2}}", 'fleet.backend-1 needs "profile", which is missing'),
        ("fleet: [h100-8b]", "fleet must be a mapping such as {backend-1: l40s-8b}, not a list"),
        ("prompt: {dist: uniform, min: 3}", 'prompt uniform needs "max", which is missing in my.'),
        ("prompt: {dist: uniform, min: 3, max: 2}", "prompt.min is larger than prompt.max in my."),
        ("prompt: {dist: fixed, tokens: 3, max: 4}", '"max" is not allowed with prompt fixed in'),
        ("prompt: [1]", "prompt must be a mapping with the keys dist, tokens"),
        ("[2]: 1", 'unknown key "a list" of a scenario in my.yaml:1:1'),
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
        ("timeline: [{at: 1}]", 'timeline[0] needs "do", which is missing in my.yaml:1:12'),
        ("timeline: [{at: 1, do: scale}]", 'timeline[0]: scale needs "backends", which is missi'),
        ("timeline: [{at: 1, do: heel}]", 'did you mean "heal"?'),
        ("timeline: [{at: 1, do: heal, key: k}]", 'timeline[0]: "key" is not allowed with heal in'),
        (
            "timeline: [{at: 1, do: fault, backend: backend-1, kind: slow}]",
            'timeline[0]: fault "slow" needs a value from 1 to 1,000 in my.yaml:1:12',
        ),
        (
            "timeline: [{at: 1, do: fault, backend: backend-1, kind: kill, value: 1}]",
            'timeline[0]: fault "kill" takes no value in my.yaml:1:70',
        ),
        (
            "timeline: [{at: 1, do: fault, backend: nginx, kind: slow, value: 2}]",
            'timeline[0]: nginx has no fault "slow" in my.yaml:1:53',
        ),
        (
            "{requests: 1, rate: 1, timeline: [{at: 1, do: heal, backend: backend-9}]}",
            'the heal at 1 s names "backend-9", but the last backend is backend-3, in my.yaml:1:34',
        ),
        (
            "{requests: 1, rate: 1, timeline: [{at: 1, do: scale, backends: 2},"
            " {at: 2, do: heal, backend: backend-3}]}",
            'the heal at 2 s names "backend-3", but the last backend is backend-2, in my.yaml:1:34',
        ),
        (
            "{requests: 1, rate: 1, timeline: [{at: 1, do: use, method: least_con}]}",
            'did you mean "least_conn"?',
        ),
        (
            "{requests: 1, rate: 1, timeline: [{at: 1, do: use, method: random, weights: [1, 2]}]}",
            "the use at 1 s: 2 weights for 3 backends in my.yaml:1:34",
        ),
        (
            "{requests: 1, rate: 1, timeline: [{at: 1, do: use, method: random, key: $uri}]}",
            "the use at 1 s: random takes no key in my.yaml:1:34",
        ),
        (
            "{requests: 1, rate: 1, timeline: [{at: 1, do: use, method: hash, key: $}]}",
            'timeline[0].key must be a key such as $request_uri, not "$", in my.yaml:1:71',
        ),
        (
            "{duration: 5, rate: 1, timeline: [{at: 6, do: heal}]}",
            "the heal at 6 s is after the end at 5 s, in my.yaml:1:34",
        ),
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


_YAML = st.text(alphabet="ab1.:{}[]&*!%,|>?-#~'\"\n\t ", max_size=20)
_KEYS = st.sampled_from(["rate", "prompt", "fleet", "timeline", "tenants", "at", "do", "dist"])
_VALUES = st.one_of(_YAML, st.integers(), st.floats(), st.none(), st.booleans())


@given(st.one_of(st.binary(max_size=60), _YAML, st.dictionaries(_KEYS, _VALUES).map(str)))
def test_whatever_the_file_holds_only_a_usage_error_is_raised(text: bytes | str) -> None:
    """No input ends in a traceback, and every refusal names the file."""
    with pytest.raises(UsageError, match=r"fuzz\.yaml"):
        parse(text, "fuzz.yaml")
