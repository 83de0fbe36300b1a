"""Measure section by section."""

import time
from collections.abc import Callable, Iterator, Sequence

from ..errors import UsageError
from ..stack import compose
from . import commands, generator, judging, predicting, services, starting
from .figures import Series

SECTIONS = (
    *("commands", "starting", "verify", "counting", "judging", "predicting"),
    *("generator", "services"),
)
ALONE = ("commands", "counting", "judging", "predicting")  # sections that need no running lab


def measure(
    sections: Sequence[str], quick: bool, repeats: int, note: Callable[[str], None]
) -> Iterator[Series]:
    """Yield each series as soon as it is measured.

    `quick` measures less: fewer cases, fewer requests, fewer servers. Sections that are not in
    ALONE need a running lab (LabError); without one `commands` leaves out what needs containers.
    """
    if unknown := set(sections) - set(SECTIONS):
        raise UsageError(f'unknown section "{min(unknown)}"', f"any of {', '.join(SECTIONS)}")
    started = time.monotonic()
    chosen = sections or SECTIONS
    for number, section in enumerate(chosen, 1):

        def note_progress(text: str, number: int = number) -> None:
            minutes, seconds = divmod(int(time.monotonic() - started), 60)
            note(f"{minutes}:{seconds:02} section {number} of {len(chosen)}, {text}")

        yield from _section(section, quick, repeats, note_progress)


def _section(
    section: str, quick: bool, repeats: int, note: Callable[[str], None]
) -> Iterator[Series]:
    lab = compose.running(compose.from_environment())
    is_up = bool(compose.containers(lab))
    if not is_up and section not in ALONE:
        raise compose.not_up(lab)
    match section:
        case "commands":
            return commands.measure(lab if is_up else None, repeats, note)
        case "starting":
            return starting.measure(lab, 1 if quick else repeats, note)
        case "verify":
            return starting.verify(1 if quick else repeats, note)
        case "counting":
            return commands.counting(100_000 if quick else 1_000_000, repeats, note)
        case "judging":
            return judging.measure(quick, repeats, note)
        case "predicting":
            servers = (3, 100, 1000) if quick else (3, 30, 100, 300, 1000, 3000)
            return predicting.measure(servers, 30_000 if quick else 100_000, repeats, note)
        case "generator":
            return generator.measure(lab, 2.0 if quick else 5.0, repeats, note)
    return services.measure(lab, quick, repeats, note)
