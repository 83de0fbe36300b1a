"""ApacheBench, run in the load container, through the lab door."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..stack import compose
from ..stack.compose import Lab
from ..stack.shell import run

INSIDE = "http://nginx:8081"  # the lab door, as the load container sees it
ANSWER_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Ab:
    """One ApacheBench call: `requests` in all, `concurrency` at a time."""

    requests: int = 1000
    concurrency: int = 10
    keepalive: bool = False
    path: str = "/"
    body: bytes | None = None
    content_type: str = "application/json"
    headers: tuple[str, ...] = ()


def ab(lab: Lab, call: Ab, base: str = INSIDE) -> str:
    """Run ApacheBench in the load container and return what it printed.

    Responses contain their server and time, so their lengths vary and ab gets -l. ab's output is
    returned even if ab gave up; `evidence.ab_report` parses its message.
    """
    _check(call)
    load = compose.running_id(lab, "load")
    pid_file = _new_path()
    words = [
        "sh",
        "-c",
        f'echo $$ > {pid_file}; exec "$@"',
        "ab",
        "ab",
        "-q",
        "-l",
        "-n",
        str(call.requests),
        "-c",
        str(call.concurrency),
    ]
    words += ["-s", str(ANSWER_SECONDS), *(["-k"] if call.keepalive else [])]
    words += [word for header in call.headers for word in ("-H", header)]
    if call.body is not None:
        file = _new_path()
        run(["docker", "exec", "-i", load, "sh", "-c", f"cat > {file}"], stdin=call.body)
        words += ["-p", file, "-T", call.content_type]
    try:
        done = run(
            ["docker", "exec", load, *words, f"{base}{call.path}"], check=False, timeout=3600
        )
    except BaseException:
        # `docker exec` has ended, but ab would go on sending during the next run
        run(
            ["docker", "exec", load, "sh", "-c", f"kill $(cat {pid_file})"], check=False, timeout=30
        )
        raise
    return done.stdout + done.stderr


def _new_path() -> str:
    """The path of a new file in the load container; two calls never share one."""
    return f"/tmp/{uuid.uuid4().hex}"  # noqa: S108 - a tmpfs of that container alone


def _check(call: Ab) -> None:
    """Refuse what ab would refuse, with a message that says what to change."""
    if not call.path.startswith("/"):
        raise UsageError(f'path "{call.path}" does not begin with /', "a path such as /chat")
    if call.requests < 1 or call.concurrency < 1:
        raise UsageError(
            f"-n {call.requests} -c {call.concurrency} is out of range", "1 or more for both"
        )
    if call.concurrency > call.requests:
        raise UsageError(
            f"-c {call.concurrency} is more than -n {call.requests}",
            f"lab ab -n {call.concurrency} -c {call.concurrency}",
        )


def body_of(file: Path) -> bytes:
    """The content of a file to post."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}", "--post with a file that can be read"
        ) from None
