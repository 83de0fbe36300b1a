"""One command at a time on a lab: a lock that records its holder."""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from ..errors import LabError
from .compose import Lab


@contextmanager
def held(lab: Lab, words: Sequence[str]) -> Iterator[None]:
    """Lock the lab for one command; LabError names the current holder.

    The kernel releases the lock when the process ends, however it ends.
    """
    lab.state.mkdir(parents=True, exist_ok=True)
    with (lab.state / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(*_holder(lab, file)) from None
        file.truncate(0)
        holder = {
            "pid": os.getpid(),
            "command": " ".join(words),
            "since": time.strftime("%H:%M:%S"),
        }
        file.write(json.dumps(holder))
        file.flush()
        yield


def _holder(lab: Lab, file: IO[str]) -> tuple[str, str]:
    """The error message with the lock's holder, and the hint."""
    file.seek(0)
    try:
        holder = json.load(file)
        who = f'"{holder["command"]}" (process {holder["pid"]}, since {holder["since"]})'
        end = f"wait until it ends, or: kill {holder['pid']}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        who, end = "another command", "wait until it ends"
    return f'lab "{lab.project}" is in use by {who}', end
