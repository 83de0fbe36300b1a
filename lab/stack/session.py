"""Run commands in containers over shells that stay open.

The engine takes 0.1 s to start a process in a container, much of it CPU, and several times that on
a busy machine. A shell that is already there runs a command in a few milliseconds.
"""

import atexit
import os
import re
import select
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from . import engine
from .engine import HEADER, STDOUT
from .shell import CommandError

KILLED = 137  # the exit code of a command whose container was killed


@dataclass(frozen=True, slots=True)
class Executed:
    """A command that ended in a container: its exit code and its output."""

    code: int
    stdout: bytes
    stderr: bytes


class Session:
    """A shell in a container, which runs one command at a time."""

    def __init__(self, container: str) -> None:
        self._connection = engine.attached(container, ["sh"])
        self._stream = self._connection.sock.makefile("rb")

    def close(self) -> None:
        """Close the connection; the shell ends as soon as its command has ended."""
        self._stream.close()
        self._connection.close()

    def is_open(self) -> bool:
        """Whether the shell waits for a command; else it has ended with its container."""
        unread = select.poll()
        unread.register(self._connection.sock, select.POLLIN)
        return not unread.poll(0)

    def run(self, words: Sequence[str], timeout: float, stdin: str = "") -> Executed:
        """Run a command to its end; TimeoutError if it prints nothing for `timeout` seconds.

        The session cannot be used after an error.
        """
        mark = os.urandom(16).hex()
        ending = f"printf '\\n{mark} %d\\n' $?; printf {mark} >&2"
        line = f"printf %s {shlex.quote(stdin)} | {shlex.join(words)}; {ending}\n"
        self._connection.sock.settimeout(timeout)
        with suppress(ConnectionError):  # the container has just ended: nothing is left to read
            self._connection.sock.sendall(line.encode(errors="surrogateescape"))
        return self._output_until(mark.encode())

    def _output_until(self, mark: bytes) -> Executed:
        """The output and exit code of a command whose output and errors end with a mark."""
        output, errors = bytearray(), bytearray()
        ending = re.compile(rb"\n%s (\d+)\n\Z" % mark)
        longest = len(mark) + len("\n 255\n")
        for stream, data in self._frames():
            part = output if stream == STDOUT else errors
            part += data
            code = ending.search(output, max(0, len(output) - longest))
            if code and errors.endswith(mark):
                errors = errors.removesuffix(mark)
                return Executed(int(code[1]), bytes(output[: code.start()]), bytes(errors))
        return Executed(KILLED, bytes(output), bytes(errors))

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """The pieces of the output as they come, each with the number of its stream."""
        with suppress(ConnectionError):
            while len(header := self._stream.read(HEADER.size)) == HEADER.size:
                stream, length = HEADER.unpack(header)
                yield stream, self._stream.read(length)


_idle: dict[str, list[Session]] = {}  # the sessions that run no command, by container


def execute(container: str, words: Sequence[str], timeout: float, stdin: str = "") -> Executed:
    """Run a command in a container to its end, over an idle session or a new one.

    `stdin` is the command's input, without null characters. CommandError if it prints nothing for
    `timeout` seconds, LabError if the engine refuses. Several threads may call it at once: each has
    its own session.
    """
    session = _take(container) or Session(container)
    try:
        executed = session.run(words, timeout, stdin)
    except BaseException as error:
        session.close()
        if isinstance(error, TimeoutError):
            raise CommandError(words, 124, f"timed out after {timeout:g} s") from None
        raise
    _idle.setdefault(container, []).append(session)
    return executed


def output(container: str, words: Sequence[str], timeout: float, stdin: str = "") -> bytes:
    """Run a command as `execute` does and return what it printed; CommandError if it fails."""
    executed = execute(container, words, timeout, stdin)
    if executed.code:
        message = executed.stderr or executed.stdout
        raise CommandError(words, executed.code, message.decode(errors="surrogateescape"))
    return executed.stdout


def _take(container: str) -> Session | None:
    """An idle session of a container, if there is one; those that have ended are closed."""
    for sessions in list(_idle.values()):
        for session in list(sessions):
            if not session.is_open():
                with suppress(ValueError):  # another thread has just closed it
                    sessions.remove(session)
                    session.close()
    with suppress(KeyError, IndexError):
        return _idle[container].pop()
    return None


@atexit.register
def close_idle() -> None:
    """Close every idle session."""
    for sessions in _idle.values():
        for session in sessions:
            session.close()
    _idle.clear()
