"""Ctrl-C and SIGTERM: the exceptions that they raise, and blocks that delay them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """SIGTERM was received: exit as on Ctrl-C, with clean-up."""


INTERRUPTIONS = (KeyboardInterrupt, Terminated)


def terminate(_signal: int, _frame: FrameType | None) -> None:
    """Signal handler: raise Terminated."""
    raise Terminated


@contextmanager
def signals_held() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block ends, also for the commands that it runs.

    Python discards an exception that a signal raises while a module or compiled code is loaded.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
