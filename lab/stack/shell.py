"""Run commands: the one place from which the lab starts a process."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import LabError
from ..paths import SETUP

S = TypeVar("S")
T = TypeVar("T")

KILL_SECONDS = 0.25  # for a command to end by itself, because Ctrl-C reached it too
TAIL = 12  # last lines of stderr that an error shows


class CommandError(LabError):
    """A command failed; it has its `returncode` and its `stderr`."""

    def __init__(
        self, command: Sequence[str], returncode: int, stderr: str, hint: str = ""
    ) -> None:
        last = "\n".join(stderr.strip().splitlines()[-TAIL:])
        shown = " ".join(command)
        super().__init__(f'"{shown}" ended with exit code {returncode}\n{last}'.rstrip(), hint)
        self.returncode = returncode
        self.stderr = stderr


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    timeout: float = 900,
    stdin: bytes | None = None,
    grace: float = 0.0,
) -> subprocess.CompletedProcess[str]:
    """Run `command` (a list, no shell) to its end and return its text output.

    `env` is added to this process's environment; bytes that are not UTF-8 come out as
    surrogates. Raises CommandError when it fails (unless `check` is off), cannot be found, or
    takes more than `timeout` seconds. When this process is interrupted, the command is killed; with
    `grace` it first has that many seconds to end, and a terminal's Ctrl-C does not reach it.
    """
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=grace > 0,
        )
    except FileNotFoundError:
        raise CommandError(command, 127, f"{command[0]}: command not found", SETUP) from None
    with process:
        try:
            text = None if stdin is None else stdin.decode(errors="surrogateescape")
            output, errors = process.communicate(text, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise CommandError(command, 124, f"timed out after {timeout:g} s") from None
        except BaseException:
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=grace or KILL_SECONDS)
            process.kill()
            raise
    if check and process.returncode != 0:
        raise CommandError(command, process.returncode, errors or output)
    return subprocess.CompletedProcess(list(command), process.returncode, output, errors)


def works(command: Sequence[str], timeout: float = 60) -> bool:
    """Whether `command` can be run and succeeds."""
    try:
        return run(command, check=False, timeout=timeout).returncode == 0
    except CommandError:
        return False


def poll(
    read: Callable[[], T], enough: Callable[[T], bool], seconds: float, interval: float = 0.05
) -> T:
    """Call `read` until its value is `enough` or the time is over; return the last value."""
    deadline = time.monotonic() + seconds
    while not enough(value := read()) and time.monotonic() < deadline:
        time.sleep(interval)  # Docker, nginx and their logs do not notify: they must be asked again
    return value


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll `condition`; LabError naming `what` if it does not hold in time."""
    if not poll(condition, bool, seconds):
        raise LabError(f"waited {seconds:g} s for {what}", "lab status")


def in_parallel(call: Callable[[S], T], subjects: Sequence[S]) -> list[T]:
    """Call a function for all subjects at once; return the results in order.

    The first error is raised when all calls have ended.
    """
    with ThreadPoolExecutor(max(1, len(subjects))) as pool:
        return list(pool.map(call, subjects))


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically: readers see the old text or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)
