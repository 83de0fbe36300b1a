"""Send requests to a backend's behaviour port, which sets its faults, profile and cache."""

import json
from typing import Any

from ..errors import LabError, UsageError
from . import compose
from .compose import Lab
from .shell import CommandError

CONTROL = """
import sys, urllib.error, urllib.request
method, path, body = sys.argv[1:4]
url = "http://127.0.0.1:9000" + path
request = urllib.request.Request(url, body.encode() or None, method=method)
try:
    print(urllib.request.urlopen(request, timeout=5).read().decode())
except urllib.error.HTTPError as error:
    print(error.read().decode())
    sys.exit(1)
"""


def request(lab: Lab, backend: str, method: str, path: str, content: Any = None) -> dict[str, Any]:
    """Send a request to a backend's behaviour port, reachable only inside its container.

    Raises UsageError with the backend's message if the backend refuses the request.
    """
    body = "" if content is None else json.dumps(content)
    try:
        output = compose.execute(lab, backend, ["python3", "-c", CONTROL, method, path, body])
        answer: dict[str, Any] = json.loads(output)
    except CommandError as error:
        raise _refusal(backend, error) from None
    return answer


def _refusal(backend: str, error: CommandError) -> LabError:
    """The behaviour port's error message, or that it did not answer."""
    try:
        return UsageError(f"{backend}: {json.loads(error.stderr)['error']}", "lab fault --help")
    except (ValueError, KeyError, TypeError):
        last = (error.stderr.strip().splitlines() or ["no answer"])[-1]
        return LabError(f"{backend}'s behaviour port does not answer: {last}", "lab heal")
