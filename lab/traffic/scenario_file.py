"""Read a scenario file: each key by its reader, then what must agree between the keys."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ..backends.llm.profiles import MOST, PROFILES, Limits
from .scenario import (
    MOST_BACKENDS,
    MOST_SECONDS,
    MOST_SEED,
    Lengths,
    Machine,
    Scenario,
    Sessions,
    Targets,
    Tenants,
    backend_names,
)
from .scenario_timeline import check_timeline, read_timeline
from .yaml_reader import (
    Reader,
    check_variant,
    choice,
    fail,
    fields_of,
    flag,
    integer,
    number,
    record,
    root_node,
    string,
    wrong_value,
)

MOST_REQUESTS = 10_000_000
_MOST_TOKENS = 131_072
ARRIVALS = {
    "poisson": ("rate",),
    "constant": ("rate",),
    "bursts": ("rate", "burst"),
    "closed": ("users",),
}
_DISTS = {
    "fixed": ("tokens",),
    "uniform": ("min", "max"),
    "lognormal": ("median", "sigma", "max"),
}


def parse(text: bytes | str, file: str) -> Scenario:
    """The scenario that `text` describes; `file` is its name in errors.

    Raises UsageError with file:line:column, the error and the allowed values.
    """
    root = root_node(text, file, tuple(READERS))
    fields = fields_of(root, "a scenario", tuple(READERS))
    values = {key: READERS[key](node, key) for key, node in fields.items()}
    values.setdefault("name", re.sub(r"[^\w.-]", "_", Path(file).stem) or "scenario")
    scenario = Scenario(**values)
    _check_length(scenario, root)
    check_variant(fields, scenario.arrivals, "arrivals", ARRIVALS, root)
    _check_fleet(scenario, fields)
    check_timeline(scenario, fields)
    return scenario


def _lengths(low: int, node: yaml.Node, key: str) -> Lengths:
    tokens = integer(low, _MOST_TOKENS)
    if isinstance(node, yaml.ScalarNode):
        return Lengths(tokens=tokens(node, key))
    lengths = record(
        Lengths,
        dist=choice(*_DISTS),
        tokens=tokens,
        min=tokens,
        max=tokens,
        median=number(1, _MOST_TOKENS),
        sigma=number(0, 10),
    )(node, key)
    check_variant(fields_of(node, key, Lengths.__match_args__), lengths.dist, key, _DISTS, node)
    if lengths.dist != "fixed" and max(lengths.min, lengths.median) > lengths.max:
        smaller = "min" if lengths.dist == "uniform" else "median"
        fail(node, f"{key}.{smaller} is larger than {key}.max", f"raise {key}.max")
    return lengths


def read_machine(node: yaml.Node, key: str) -> Machine:
    """Read one backend: the name of its profile, or a mapping with its limits."""
    if isinstance(node, yaml.ScalarNode):
        return Machine(choice(*PROFILES)(node, key))
    return record(machine_of, ("profile",), **machine_readers())(node, key)


def machine_readers() -> dict[str, Reader[Any]]:
    """The readers of the fields of a backend's mapping."""
    limits = dict.fromkeys(Limits.__dataclass_fields__, integer(1, MOST))
    return {"profile": choice(*PROFILES), "slow": number(1, 1000), **limits}


def machine_of(profile: str, slow: float = 1.0, **limits: int) -> Machine:
    """A backend from the fields of its mapping."""
    return Machine(profile, slow, Limits(**limits))


def _fleet(node: yaml.Node, key: str) -> dict[str, Machine]:
    allowed = tuple(f"backend-{n}" for n in range(1, MOST_BACKENDS + 1))
    if not isinstance(node, yaml.MappingNode):
        wrong_value(node, key, "a mapping such as {backend-1: l40s-8b}")
    fields = fields_of(node, key, allowed)
    return {name: read_machine(value, f"{key}.{name}") for name, value in fields.items()}


def _check_length(scenario: Scenario, root: yaml.Node) -> None:
    if scenario.duration is None and scenario.requests is None:
        fail(root, "neither duration nor requests is given", "duration: 60")


def _check_fleet(scenario: Scenario, fields: Mapping[str, yaml.Node]) -> None:
    known = backend_names(scenario)
    for name in scenario.fleet:
        if name not in known:
            most = f"backend-1 to {known[-1]}"
            fail(
                fields["fleet"], f'fleet names "{name}", but there are only {most},', "set backends"
            )


READERS: Mapping[str, Reader[Any]] = {
    "name": string(r"[\w.-]{1,64}", "letters, digits, _, . and -"),
    "about": string(),
    "seed": integer(0, MOST_SEED),
    "duration": number(0.001, MOST_SECONDS),
    "requests": integer(1, MOST_REQUESTS),
    "arrivals": choice(*ARRIVALS),
    "rate": number(0.001, 100_000),
    "burst": integer(1, 100_000),
    "users": integer(1, 100_000),
    "prompt": partial(_lengths, 1),
    "output": partial(_lengths, 1),
    "tenants": record(
        Tenants,
        n=integer(1, 100_000),
        system_tokens=integer(0, _MOST_TOKENS),
        skew=number(0, 10),
    ),
    "sessions": record(Sessions, turns=integer(1, 1000), think=number(0, 3600)),
    "clients": integer(1, 65_536),
    "stream": flag,
    "api": choice("chat", "completions"),
    "model": string(r"\S+", "a model's name"),
    "backends": integer(1, MOST_BACKENDS),
    "profile": choice(*PROFILES),
    "fleet": _fleet,
    "time_scale": number(0.001, 10_000),
    "targets": record(
        Targets,
        ttft_ms=number(0.001, 1e9),
        itl_ms=number(0.001, 1e9),
        e2e_ms=number(0.001, 1e9),
    ),
    "timeline": read_timeline,
}
