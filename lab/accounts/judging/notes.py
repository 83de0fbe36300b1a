"""Read what a command wrote about its run into run.json and scenario.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...errors import UsageError
from ...evidence import typed
from ...evidence.timeline import Event
from ...traffic.scenario import Targets
from ..outcome import NO_TARGETS

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RunNotes:
    """The notes of `lab run` in run.json: requests of clients that return their cookies."""

    returning: int = 0


@dataclass(frozen=True, slots=True)
class VerifyNotes:
    """The notes of `lab verify` in run.json: the upstream, and whether nginx had just started."""

    upstream: str
    fresh: bool


@dataclass(frozen=True, slots=True)
class LoadNotes:
    """The notes of a load in run.json."""

    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScenarioNotes:
    """The fields of scenario.json that a load's outcome needs."""

    duration: float | None = None
    requests: int | None = None
    targets: Targets = NO_TARGETS
    timeline: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class SoakNotes:
    """The notes of a soak in run.json."""

    seed: int
    seconds: float
    steps: tuple[str, ...]
    memory: Mapping[str, tuple[int, ...]]


def read_notes(kind: type[_T], value: Any, file: Path) -> _T:
    """The part of a JSON file that an outcome needs; a UsageError names file and field."""
    try:
        return typed.convert(kind, value)
    except typed.MisfitError as error:
        raise UsageError(
            f"{file} is not a valid run file: {error}",
            "lab runs lists the run folders; judge another one",
        ) from None
