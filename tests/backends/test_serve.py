"""The process: its start, its end."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from nginx_llm_lab.stack.shell import wait_for
from tests.backends.serving import http

BACKENDS = Path(__file__).parents[2] / "backends"


def started(**variables: str) -> subprocess.Popen[str]:
    """A backend in a process of its own, as the container starts it."""
    environment = {"HOST": "127.0.0.1", "BACKEND_NAME": "b", "PORT": "0", "BEHAVIOUR_PORT": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "llm"],
        cwd=BACKENDS,
        env={**os.environ, **environment, **variables, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def listening() -> tuple[subprocess.Popen[str], int]:
    """A backend that answers, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    backend = started(PORT=str(port))
    assert backend.stderr
    assert backend.stderr.readline().startswith(f"b: port {port}, ")
    return backend, port


def test_a_request_on_an_idle_connection_is_answered_during_shutdown():
    """nginx reuses connections: closing one at once would lose the request just sent on it."""
    backend, port = listening()
    message = {"role": "user", "content": "x"}
    content = {"message": "x", "model": "lab-llm", "messages": [message]}
    asked = [("GET", "/"), ("POST", "/chat"), ("POST", "/v1/chat/completions")]
    with ExitStack() as stack:
        stack.callback(backend.kill)
        kept = [stack.enter_context(closing(HTTPConnection("127.0.0.1", port, 5))) for _ in asked]
        assert [sent(connection, "GET", "/", None) for connection in kept] == [200, 200, 200]

        backend.send_signal(signal.SIGTERM)
        wait_for(lambda: refused(port), 5, "the port to be closed")
        statuses = [
            sent(connection, *call, content) for connection, call in zip(kept, asked, strict=True)
        ]
        out, errors = backend.communicate(timeout=10)

    assert statuses == [200, 200, 200]
    assert (backend.returncode, errors, out.count("\n")) == (0, "", 6)


def sent(connection: HTTPConnection, method: str, path: str, content: object) -> int:
    """The status of a response on an open connection."""
    connection.request(method, path, json.dumps(content), {"Content-Type": "application/json"})
    connection.auto_open = 0
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


def refused(port: int) -> bool:
    """Whether the port is closed."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(number: signal.Signals):
    """Exit code 0, the journal complete, nothing but lines on stdout."""
    backend, port = listening()
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
    """The line names the port and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        _, errors = (backend := started(PORT=port)).communicate(timeout=10)

    assert (backend.returncode, errors) == (2, f'error: PORT="{port}": Address already in use\n')
