"""Measure section by section."""

from collections.abc import Callable, Iterator, Sequence

from ..errors import LabError, UsageError
from ..stack import compose
from . import commands, generator, predicting, services
from .figures import Series

SECTIONS = ("commands", "counting", "predicting", "generator", "services")


def measure(
    sections: Sequence[str], quick: bool, repeats: int, note: Callable[[str], None]
) -> Iterator[Series]:
    """Yield the series of each section as soon as it is measured.

    `quick` measures less: fewer cases, fewer requests, fewer servers. `generator` and `services`
    need a running lab (LabError); without one `commands` leaves out what needs containers.
    """
    if unknown := set(sections) - set(SECTIONS):
        raise UsageError(f'unknown section "{min(unknown)}"', f"any of {', '.join(SECTIONS)}")
    for section in sections or SECTIONS:
        yield from _section(section, quick, repeats, note)


def _section(
    section: str, quick: bool, repeats: int, note: Callable[[str], None]
) -> Iterator[Series]:
    if section == "commands":
        return commands.own(repeats, _is_up(), note)
    if section == "counting":
        return commands.counting(100_000 if quick else 1_000_000, repeats, note)
    if section == "predicting":
        servers = (3, 100, 1000) if quick else (3, 30, 100, 300, 1000, 3000)
        return predicting.measure(servers, 20_000 if quick else 200_000, repeats, note)
    lab = compose.running(compose.from_environment())
    if section == "generator":
        return generator.measure(lab, 2.0 if quick else 10.0, repeats, note)
    return services.measure(lab, quick, repeats, note)


def _is_up() -> bool:
    try:
        compose.running(compose.from_environment())
    except LabError:
        return False
    return True
