"""Read the fleet file of `lab advise`: servers, weights, nginx's version, and the load."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .scenario import Machine, Scenario
from .scenario_file import (
    ARRIVALS,
    MOST_REQUESTS,
    READERS,
    machine_of,
    machine_readers,
    read_machine,
)
from .yaml_reader import (
    check_needed,
    check_variant,
    fail,
    fields_of,
    flag,
    integer,
    list_of,
    record,
    root_node,
    string,
    wrong_value,
)

_MOST_SERVERS = 1000  # of a fleet that is only simulated
_ENOUGH = 1500  # requests, where a fleet file says neither duration nor requests
_ENOUGH_PER_SERVER = 20
_OF_A_FLEET = ("servers", "nginx", "nat")
_NOT_OF_A_FLEET = ("name", "backends", "profile", "fleet", "timeline")
_NEWEST = (1, 31, 0)
_WITH_ZONE = (1, 9, 0)  # the oldest nginx that takes the config


def parse_fleet(text: bytes | str, file: str) -> tuple[Scenario, tuple[int, ...], tuple[int, ...]]:
    """A fleet and its load, as `lab advise` takes them: scenario, version of nginx, weights.

    The keys are a scenario's, without name, fleet, backends, profile, timeline; with `servers`, a
    list of profiles or {profile: …, slow: factor, count: n, weight: w}, with `nginx: 1.28.0`, and
    with `nat: true` where all clients share one address. Raises UsageError as `parse` does.
    """
    others = {key: reader for key, reader in READERS.items() if key not in _NOT_OF_A_FLEET}
    allowed = (*_OF_A_FLEET, *others)
    root = root_node(text, file, allowed)
    fields = fields_of(root, "a fleet", allowed)
    check_needed(fields, ("servers",), "a fleet", root)
    groups = list_of(_server)(fields["servers"], "servers")
    servers = [server for group in groups for server in group]
    if not 1 <= len(servers) <= _MOST_SERVERS:
        rule = f"servers must be from 1 to {_MOST_SERVERS:,} in all"
        fail(fields["servers"], f"{rule}, not {len(servers):,},", "servers: [h100-8b, h100-8b]")
    values = {key: others[key](node, key) for key, node in fields.items() if key in others}
    if "duration" not in values:
        values.setdefault("requests", max(_ENOUGH, _ENOUGH_PER_SERVER * len(servers)))
    if "nat" in fields and flag(fields["nat"], "nat"):
        if "clients" in fields:
            fail(fields["clients"], "with nat all clients have one address", "leave out clients")
        values["clients"] = 1
    name = re.sub(r"[^\w.-]", "_", Path(file).stem) or "fleet"
    fleet = {f"backend-{place}": machine for place, (machine, _) in enumerate(servers, 1)}
    weights = tuple(weight for _, weight in servers)
    scenario = Scenario(**values, name=name, backends=len(servers), fleet=fleet)
    check_variant(fields, scenario.arrivals, "arrivals", ARRIVALS, root)
    _check_amount(scenario, fields)
    version = _nginx(fields["nginx"], "nginx") if "nginx" in fields else _NEWEST
    return scenario, version, weights


def _check_amount(scenario: Scenario, fields: Mapping[str, yaml.Node]) -> None:
    """Refuse a duration in which more requests would be sent than `requests` allows."""
    if scenario.duration is None or scenario.requests is not None:
        return
    per_second = scenario.rate * scenario.sessions.turns
    if scenario.arrivals == "closed":
        per_second = scenario.users / max(scenario.sessions.think, 0.1)
    if scenario.duration * per_second > MOST_REQUESTS:
        most = f"duration may make at most {MOST_REQUESTS:,} requests"
        fail(fields["duration"], most, "a shorter duration, or requests: 100000")


def _nginx(node: yaml.Node, key: str) -> tuple[int, ...]:
    """A version of nginx that has `zone`."""
    wanted = "a version such as 1.28.0"
    numbers = string(r"\d{1,4}\.\d{1,4}\.\d{1,4}", wanted)(node, key)
    version = tuple(map(int, numbers.split(".")))
    if version < _WITH_ZONE:
        wrong_value(node, key, "1.9.0 or newer, which has zone")
    return version


def _server(node: yaml.Node, key: str) -> list[tuple[Machine, int]]:
    """One entry of a fleet's servers: `count` equal machines and their weight."""
    if isinstance(node, yaml.ScalarNode):
        return [(read_machine(node, key), 1)]
    count, weight = integer(1, _MOST_SERVERS), integer(1, 1_000_000)

    def machines_of(count: int = 1, weight: int = 1, **fields: Any) -> list[tuple[Machine, int]]:
        return [(machine_of(**fields), weight)] * count

    readers = {**machine_readers(), "count": count, "weight": weight}
    del readers["queue_limit"]  # is not simulated
    return record(machines_of, ("profile",), **readers)(node, key)
