"""A timeline is read in the order of its events, or refused with the event's place."""

import pytest

from nginx_llm_lab.evidence.timeline import Event
from nginx_llm_lab.traffic.scenario_file import parse
from tests.traffic.yaml_errors import refusal


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
    ],
)
def test_a_wrong_event_is_refused_with_its_place_and_what_is_allowed(text: str, says: str) -> None:
    """An event has the keys of its verb, names a backend that there is, and lies before the end."""
    assert says in refusal(text)
