"""Find the scenario that the command line names: built in, a file, or a recorded trace."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

from ..errors import UsageError
from .scenario import MOST_SECONDS, MOST_SEED, Scenario, traced
from .scenario_file import parse
from .trace_file import read
from .yaml_reader import did_you_mean


def requested(
    name: str, duration: float = 0.0, trace: str = "", speed: float = 1.0, limit: int | None = None
) -> Scenario:
    """The scenario named on the command line, with its duration replaced if one is given.

    With a trace the name may be empty; the trace is then sent to the default fleet. UsageError if
    neither is given, for a `speed` or a `limit` without a trace, and for a duration with one.
    """
    if not trace:
        if not name:
            raise UsageError(
                "no scenario and no trace", "lab scenarios lists them; or --trace FILE"
            )
        if speed != 1.0 or limit is not None:
            raise UsageError("--speed and --limit need a trace", "--trace FILE")
        return lasting(load(name), duration)
    if duration:
        raise UsageError("--duration needs a scenario without a trace", "with --trace: --limit N")
    recorded = read(trace, speed=speed, limit=limit)
    return traced(recorded, load(name) if name else None)


def lasting(scenario: Scenario, duration: float) -> Scenario:
    """The scenario with the --duration of the command line; with its own if that is 0."""
    if not 0 <= duration <= MOST_SECONDS:
        raise UsageError(
            f"--duration {duration:g} is out of range",
            f"seconds from 0, which is the scenario's own duration, to {MOST_SECONDS:,}",
        )
    return replace(scenario, duration=duration) if duration else scenario


def seed_of(number: int) -> int:
    """A seed from the command line; UsageError for one that no scenario may have."""
    if not 0 <= number <= MOST_SEED:
        raise UsageError(f"--seed {number} is out of range", f"a number from 0 to {MOST_SEED:,}")
    return number


def names() -> tuple[str, ...]:
    """The built-in scenarios' names, sorted."""
    folder = resources.files(__package__) / "scenarios"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if _is_yaml(f.name)))


def load(name_or_path: str) -> Scenario:
    """A built-in scenario by its name, or the user's own by its path.

    Raises UsageError for a name that is neither, and for a file that cannot be read or is wrong.
    """
    if name_or_path in names():
        file = f"{name_or_path}.yaml"
        return parse((resources.files(__package__) / "scenarios" / file).read_bytes(), file)
    if not (_is_yaml(name_or_path) or "/" in name_or_path or Path(name_or_path).is_file()):
        raise UsageError(
            f'no scenario is called "{name_or_path}"',
            f"{did_you_mean(name_or_path, names())} (built in: {', '.join(names())}; or a path)",
        )
    try:
        return parse(Path(name_or_path).read_bytes(), name_or_path)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f'cannot read scenario "{name_or_path}": {reason}',
            "lab scenarios lists the built-in ones",
        ) from error


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))
