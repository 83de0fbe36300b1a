"""Send requests to a backend's behaviour port, which sets its faults, profile and cache."""

import json
from typing import Any

from ..errors import LabError, UsageError
from . import compose
from .compose import Lab
from .shell import CommandError

SECONDS = 5  # in which a backend answers
CONTROL = r"""
LC_ALL=C  # the length of the body is in bytes
exec 3<>/dev/tcp/127.0.0.1/9000 || exit
printf '%s %s HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
    "$1" "$2" "${#3}" "$3" >&3
cat <&3
"""  # bash, because Python takes ten times longer to start


def request(lab: Lab, backend: str, method: str, path: str, content: Any = None) -> dict[str, Any]:
    """Send a request to a backend's behaviour port, reachable only inside its container.

    Raises UsageError with the backend's message if the backend refuses the request.
    """
    body = "" if content is None else json.dumps(content)
    words = ["timeout", str(SECONDS), "bash", "-c", CONTROL, "control", method, path, body]
    try:
        head, _, text = compose.execute(lab, backend, words).partition("\r\n\r\n")
        answer: dict[str, Any] = json.loads(text)
        status = int(head.split()[1])
    except CommandError as error:
        raise _no_answer(backend, error.stderr) from None
    except (ValueError, IndexError):
        raise _no_answer(backend, "") from None
    if status >= 400:
        raise UsageError(f"{backend}: {answer['error']}", "lab fault --help")
    return answer


def _no_answer(backend: str, output: str) -> LabError:
    """The error for a behaviour port that did not answer, with what the attempt printed last."""
    last = (output.strip().splitlines() or ["no answer"])[-1]
    return LabError(f"{backend}'s behaviour port does not answer: {last}", "lab heal")
