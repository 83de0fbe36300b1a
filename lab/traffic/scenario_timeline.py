"""Read a scenario's timeline: the events, their faults and their times."""

from collections.abc import Mapping
from typing import Any

import yaml

from .. import fault_kinds
from ..errors import UsageError
from ..evidence.timeline import Event
from ..fault_kinds import By
from ..nginxconf import methods
from .scenario import MOST_BACKENDS, MOST_SECONDS, Scenario
from .yaml_reader import (
    Reader,
    check_needed,
    choice,
    fail,
    fields_of,
    integer,
    list_of,
    number,
    range_text,
    record,
    string,
)

FAULTS = fault_kinds.names(By.ENGINE, By.BACKEND)
_OF_NGINX = fault_kinds.names(By.ENGINE)
_VERBS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fault": (("backend", "kind"), ("value",)),
    "heal": ((), ("backend",)),
    "scale": (("backends",), ()),
    "use": (("method",), ("weights", "key")),
    "reload": ((), ()),
}


def read_timeline(node: yaml.Node, key: str) -> tuple[Event, ...]:
    """Read the events, and sort them by time."""
    return tuple(sorted(list_of(_event)(node, key), key=lambda event: event.at))


def _event(node: yaml.Node, key: str) -> Event:
    """Read one event; _VERBS has the required and optional keys of each verb."""
    event = record(Event, ("at", "do"), **_EVENT)(node, key)
    fields = fields_of(node, key, tuple(_EVENT))
    needed, optional = _VERBS[event.do]
    check_needed(fields, needed, f"{key}: {event.do}", node)
    for name in fields.keys() - {"at", "do", *needed, *optional}:
        keys = ", ".join(("at", "do", *needed, *optional))
        fail(fields[name], f'{key}: "{name}" is not allowed with {event.do}', f"keys: {keys}")
    if event.do == "fault":
        _check_fault(event, fields, key, node)
    return event


def _check_fault(event: Event, fields: Mapping[str, yaml.Node], key: str, node: yaml.Node) -> None:
    allowed = fault_kinds.KINDS[event.kind].value
    if event.backend == "nginx" and event.kind not in _OF_NGINX:
        kinds = ", ".join(_OF_NGINX)
        fail(fields["kind"], f'{key}: nginx has no fault "{event.kind}"', f"kinds: {kinds}")
    if allowed is None and event.value is not None:
        fail(fields["value"], f'{key}: fault "{event.kind}" takes no value', "remove value")
    if allowed is not None and event.value is None:
        needed = f"a value {range_text(allowed.least, allowed.most)}"
        fail(node, f'{key}: fault "{event.kind}" needs {needed}', f"value: {allowed.usual:g}")
    if allowed is not None:
        number(allowed.least, allowed.most)(fields["value"], f"{key}.value")


def check_timeline(scenario: Scenario, fields: Mapping[str, yaml.Node]) -> None:
    """Check the events against the fleet, its end and its methods."""
    present = scenario.backends
    for event in scenario.timeline:
        what = f"the {event.do} at {event.at:g} s"
        present = event.backends or present
        names = tuple(f"backend-{number}" for number in range(1, present + 1))
        if event.backend not in (*names, "all", "nginx"):
            fail(
                fields["timeline"],
                f'{what} names "{event.backend}", but the last backend is {names[-1]},',
                "set backends",
            )
        if scenario.duration is not None and event.at > scenario.duration:
            fail(
                fields["timeline"],
                f"{what} is after the end at {scenario.duration:g} s,",
                "a longer duration",
            )
        if event.do == "use":
            switch = methods.Choice(event.method, names, event.weights, key=event.key)
            _check_switch(switch, what, fields["timeline"])


def _check_switch(switch: methods.Choice, what: str, node: yaml.Node) -> None:
    """Check that the method takes the event's key, and the backends its weights."""
    try:
        methods.render(switch)
    except UsageError as error:
        fail(node, f"{what}: {error.message}", error.hint)


_EVENT: Mapping[str, Reader[Any]] = {
    "at": number(0, MOST_SECONDS),
    "do": choice(*_VERBS),
    "backend": string(r"backend-[1-9]\d?|all|nginx", "backend-N, all or nginx"),
    "kind": choice(*FAULTS),
    "value": number(0, 1_000_000),
    "backends": integer(1, MOST_BACKENDS),
    "method": choice(*methods.METHODS),
    "weights": list_of(integer(1, 1_000_000)),
    "key": string(r"(?:[^\s$]|\$\w+|\$\{\w+\})+", "a key such as $request_uri"),
}
