"""The process: its start, its end."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.serving import http

BACKENDS = Path(__file__).parents[2] / "backends"


def started(**variables: str) -> subprocess.Popen[str]:
    """A backend in a process of its own, as the container starts it."""
    told = {"HOST": "127.0.0.1", "BACKEND_NAME": "b", "PORT": "0", "BEHAVIOUR_PORT": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "llm"],
        cwd=BACKENDS,
        env={**os.environ, **told, **variables, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(number: signal.Signals):
    """Exit code 0, the journal complete, nothing but lines on stdout."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    backend = started(PORT=port)
    assert backend.stderr
    assert backend.stderr.readline().startswith(f"b: port {port}, ")
    assert http.get(f"http://127.0.0.1:{port}/").ok

    backend.send_signal(number)
    out, errors = backend.communicate(timeout=10)

    assert (backend.returncode, errors, out.count("\n")) == (0, "", 1)


def test_a_bad_setting_is_one_line_and_exit_code_2():
    """No traceback."""
    out, errors = (backend := started(PROFILE="h200")).communicate(timeout=10)

    assert (backend.returncode, out) == (2, "")
    assert errors.startswith('error: PROFILE="h200": one of instant, ')
    assert errors.count("\n") == 1


def test_a_port_that_is_taken_is_one_line_and_exit_code_2():
    """Which one, and why."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        _, errors = (backend := started(PORT=port)).communicate(timeout=10)

    assert (backend.returncode, errors) == (2, f'error: PORT="{port}": Address already in use\n')
