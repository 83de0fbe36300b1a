"""The running nginx: switch its method, ask its version, fetch its log."""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError
from ..paths import ROOT
from . import compose
from .compose import Lab
from .shell import CommandError, poll, write_whole

FOLDER = "/etc/nginx/lab"
EVIDENCE = "/var/log/nginx/lab/access.jsonl"
TRACE = "/var/log/nginx/lab/trace.log"
# an error_log in http replaces the one above it, so stderr is named again
TRACING = f"""# nginx's debug log of its picks, written by `lab run` for its own traffic.
error_log stderr notice;
error_log {TRACE} debug_http;
"""
LOG_SECONDS = 20
WORKERS = "/proc/1/task/1/children"  # of the master process
READS_ANOTHER = 9  # reload.sh's exit code where nginx reads another upstream.conf


class MissingLinesError(LabError):
    """nginx did not log all requests."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A successful switch.

    `finishing` counts the old workers that still finish responses. `log_size` is the length of
    the evidence log in bytes when the last old worker stopped taking requests.
    """

    seconds: float
    finishing: int
    log_size: int


def switch(lab: Lab, text: str, *, trace: bool = False) -> Switch:
    """Make `text` nginx's upstream.conf; return when only new workers accept requests.

    With `trace` nginx also writes the debug log that `trace_log` reads, into an empty file.
    Raises LabError with nginx's own message if it refuses; the running configuration then stays, in
    nginx and in the file.
    """
    _refuse_unfit(lab)
    file = lab.active / "upstream.conf"
    before = file.read_text() if file.exists() else None
    traced = tracing(lab)
    started = time.monotonic()
    _set_trace(lab, on=trace)
    _replace(file, text)
    try:
        words = ["sh", f"{FOLDER}/reload.sh", hashlib.sha256(text.encode()).hexdigest()]
        output = compose.execute(lab, "nginx", words, timeout=60)
    except CommandError as error:
        _replace(file, before)
        _set_trace(lab, on=traced)
        if error.returncode == READS_ANOTHER:
            raise LabError(
                f'nginx of lab "{lab.project}" does not read {shown_path(file)}:'
                " the state folder was moved or lost",
                "lab up, then run the command again",
            ) from None
        refused = file.with_suffix(".conf.refused")
        refused.write_text(text)
        message = refusal(error, refused)
        stopped = "host not found in upstream" in message  # a backend that does not run
        fix = f"fix the error in {refused.name}, or choose another method: lab methods"
        raise LabError(
            f"nginx refused the configuration and keeps the previous one\n{message}",
            "lab heal, then run the command again" if stopped else fix,
        ) from None
    finishing, log_size = map(int, output.split())
    return Switch(time.monotonic() - started, finishing, log_size)


def _replace(file: Path, text: str | None) -> None:
    """Write a file atomically; None removes it."""
    if text is None:
        file.unlink(missing_ok=True)
    else:
        write_whole(file, text)


def tracing(lab: Lab) -> bool:
    """Whether nginx writes its debug log now."""
    return (lab.active / "trace.conf").exists()


def _set_trace(lab: Lab, *, on: bool) -> None:
    """Turn nginx's debug log on or off at its next reload."""
    if on or tracing(lab):
        compose.execute(lab, "nginx", ["rm", "-f", TRACE])
    _replace(lab.active / "trace.conf", TRACING if on else None)


def stop_trace(lab: Lab) -> None:
    """Turn nginx's debug log off by a reload, which also resets the state of its servers."""
    if tracing(lab):
        switch(lab, (lab.active / "upstream.conf").read_text())


def can_trace(lab: Lab) -> bool:
    """Whether the running nginx was built with a debug log."""
    return "--with-debug" in compose.execute(lab, "nginx", ["sh", "-c", "nginx -V 2>&1"])


def has_njs(lab: Lab) -> bool:
    """Whether the running nginx has the njs module, by the result of features.sh."""
    probe = "test -e /etc/nginx/features/njs && echo yes || echo no"
    return compose.execute(lab, "nginx", ["sh", "-c", probe]).strip() == "yes"


def trace_log(lab: Lab) -> bytes:
    """The lines of the debug log about picks and releases, with their numbers."""
    words = ["awk", "-f", f"{FOLDER}/trace.awk", TRACE]
    return compose.execute(lab, "nginx", words, timeout=120).encode(errors="surrogateescape")


def refusal(error: CommandError, file: Path) -> str:
    """nginx's message about a configuration, with the path of `file` that the user can open."""
    lines = [
        line for line in error.stderr.splitlines() if re.search(r"\[(emerg|alert|warn)\]", line)
    ]
    message = "\n".join(re.sub(r"^.*?(\[\w+\] )(?:\d+#\d+: )?", r"\1", line) for line in lines)
    shown = shown_path(file)
    return (message or error.stderr.strip()).replace(f"{FOLDER}/active/upstream.conf", shown)


def shown_path(file: Path) -> str:
    """A path for messages: relative to the project's folder if the file is in it."""
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


def _refuse_unfit(lab: Lab) -> None:
    """Raise LabError if nginx cannot be switched: it is down, or reads other files.

    After a plain `docker compose up` it reads another folder.
    """
    nginx = compose.container(lab, "nginx")
    if nginx.status != "running":
        raise LabError(f"nginx is {nginx.status}", "lab heal")
    compose.refuse_other_checkout(lab)
    mounts = nginx.attrs["Mounts"]
    source = next((m["Source"] for m in mounts if m["Destination"] == f"{FOLDER}/active"), "")
    if Path(source) != lab.active:
        raise LabError(
            f'lab "{lab.project}" was started without `lab up`',
            "lab up, then run the command again",
        )


def version(lab: Lab) -> tuple[int, ...]:
    """The running nginx's version."""
    output = compose.execute(lab, "nginx", ["sh", "-c", "nginx -v 2>&1"])
    match = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", output)
    if not match:
        raise LabError(f'nginx -v in lab "{lab.project}" printed: {output.strip()}', "lab status")
    return tuple(int(part) for part in match.groups())


@dataclass(frozen=True, slots=True)
class Loaded:
    """A comparison of nginx's files with what nginx loaded.

    `upstream` is the SHA-256 of upstream.conf, in hexadecimal. `changed` names the files, relative
    to nginx's folder, that changed more than a second after nginx last loaded its configuration.
    """

    upstream: str
    changed: tuple[str, ...]


def loaded(lab: Lab) -> Loaded:
    """Compare the files of the running nginx with what it loaded. LabError if it is down."""
    digest, *changed = compose.execute(lab, "nginx", ["sh", f"{FOLDER}/loaded.sh"]).split("\n")
    return Loaded(digest, tuple(filter(None, changed)))


def configuration(lab: Lab) -> str:
    """The output of `nginx -T`; a comment with its error while a backend has no address."""
    words = ["nginx", "-q", "-T", "-e", "stderr", "-c", f"{FOLDER}/nginx.conf"]
    try:
        return compose.execute(lab, "nginx", words)
    except CommandError as error:
        return "".join(f"# {line}\n" for line in error.stderr.strip().splitlines())


def workers(lab: Lab) -> frozenset[int]:
    """The ids of nginx's worker processes; none where the kernel does not list them."""
    words = ["sh", "-c", f"cat {WORKERS} 2>/dev/null || true"]
    return frozenset(map(int, compose.execute(lab, "nginx", words).split()))


def log_size(lab: Lab) -> int:
    """The length of the evidence log in bytes: the mark from which to read later."""
    output = compose.execute(
        lab, "nginx", ["sh", "-c", f"wc -c < {EVIDENCE} 2>/dev/null || echo 0"]
    )
    return int(output.strip() or 0)


def log_since(lab: Lab, mark: int) -> bytes:
    """The evidence log from byte `mark` on."""
    output = compose.execute(lab, "nginx", ["tail", "-c", f"+{mark + 1}", EVIDENCE])
    return output.encode(errors="surrogateescape")


def log_with(
    lab: Lab,
    mark: int,
    lines: int,
    count: Callable[[bytes], int] = lambda log: log.count(b"\n"),
) -> bytes:
    """The log since `mark`, once it has at least `lines` lines, counted by `count`.

    nginx logs a request after its last byte, so a client may have the response before the log.
    """
    log = poll(lambda: log_since(lab, mark), lambda log: count(log) >= lines, LOG_SECONDS)
    if (seen := count(log)) < lines:
        raise MissingLinesError(
            f"nginx logged {seen:,} of {lines:,} requests in {LOG_SECONDS} s",
            "lab status; lab logs nginx",
        )
    return log
