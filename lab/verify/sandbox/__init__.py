"""Run nginx with the user's nginx.conf and stub backends in containers without a network."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ...errors import LabError
from ...paths import ROOT
from ...stack import session
from ..logs import with_access_log, with_debug_log
from ..survey.environment import Environment
from . import client, stub
from .containers import START_SECONDS, Containers, source
from .edits import adapted
from .fixes import Fix, fix_for, hint_on
from .nginx_container import FOLDERS, IMAGE_SITES, LIFE, PREFIX, version_of, warnings

if TYPE_CHECKING:
    from ..survey.prerequisites import Prerequisite

MAX_FIXES = 60  # the most items that nginx may find missing
DEBUG_LOG = "/tmp/nginx.debug"  # noqa: S108 - in a container of its own
ACCESS_LOG = "/tmp/nginx.access"  # noqa: S108 - in a container of its own
LONGEST_LINE = 2048  # nginx cuts its log lines there
OUTPUT = "/tmp/nginx.out"  # noqa: S108 - in a container of its own


class Sandbox:
    """A context in which nginx serves `environment.conf`; exit removes every container."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.containers = Containers(environment)
        self.files = dict(environment.files)
        self.names = dict(environment.names)
        self.fixes: list[str] = []
        self.prerequisites: list[Prerequisite] = []
        self.warnings: tuple[str, ...] = ()
        self.traced = False
        self.version = "?"
        self.awaited: set[tuple[str, int]] = set()

    def __enter__(self) -> "Sandbox":
        try:
            self._start()
        except BaseException:
            self.containers.clear()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.containers.clear()

    # --- bring up -------------------------------------------------------------------------

    def _start(self) -> None:
        self.containers.start()
        self.nginx = self.containers.nginx
        self.image_files = self.nginx.image_files()
        hidden = {path: b"" for path in self.image_files if IMAGE_SITES.match(path)}
        build = self.nginx.run(["nginx", "-V"]).stderr.decode()
        self.traced = "--with-debug" in build
        self.version = version_of(build)
        self.nginx.lay({**hidden, **self._edited(self.files)}, FOLDERS, self.containers.sockets)
        self._write_names()
        self._fix_all()
        self._serve()

    def _write_names(self) -> None:
        self.nginx.write_name_files(self.names, ipv6=self.environment.ipv6)

    def _fix_all(self) -> None:
        """Supply what nginx lacks, one item at a time; LabError with its message if that fails."""
        complaint = ""
        for _ in range(MAX_FIXES):
            before, complaint = complaint, self._first_error()
            if not complaint:
                return
            fixes = (
                fix_for(complaint, self.files, self._content, self.environment.pem)
                if complaint != before
                else None
            )
            if fixes is None:
                break
            self._apply(fixes)
        replaced = "".join(f"\nreplaced before: {note}" for note in self.fixes)
        raise LabError(
            f"nginx refuses {self.environment.conf}\n{complaint}{replaced}", hint_on(complaint)
        )

    def _content(self, path: str) -> bytes | None:
        """The user's file at a path, else the image's file beside its nginx.conf."""
        content = self.environment.own_files(path)
        beside = f"{PREFIX}/{os.path.relpath(path, PurePosixPath(self.environment.conf).parent)}"
        return content if content is not None else self.image_files.get(beside)

    def _apply(self, fixes: Fix) -> None:
        self.files.update(fixes.files)
        self.names.update(dict.fromkeys(fixes.names, "127.0.0.1"))
        if fixes.note:
            self.fixes.append(fixes.note)
        if fixes.prerequisite:
            self.prerequisites.append(fixes.prerequisite)
        if fixes.files or fixes.folders:
            self.nginx.lay(
                self._edited(fixes.files), [folder.lstrip("/") for folder in fixes.folders]
            )
        if fixes.names:
            self._write_names()
        if fixes.own:
            self.containers.add_addresses(fixes.own)

    def _first_error(self) -> str:
        """The first error of `nginx -t`; empty if it succeeds."""
        tested = self.nginx.run(["nginx", "-t", *self._words()])
        lines = tested.stderr.decode(errors="replace").strip().splitlines()
        if tested.code == 0:
            self.warnings = tuple(dict.fromkeys(warnings(lines)))
            return ""
        grave = [line for line in lines if "[emerg]" in line or "[crit]" in line]
        return re.sub(r"^.*?\[(emerg|crit)\] (\d+#\d+: )?", "", (grave or lines or ["?"])[0])

    def _words(self) -> list[str]:
        return ["-q", "-e", "stderr", "-p", f"{PREFIX}/", "-c", self.environment.conf]

    def _edited(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """The files as the sandbox can serve them, with the logs that the verdicts need."""
        edited = {path: adapted(text) for path, text in files.items()}
        if self.traced:
            edited = {path: with_debug_log(text, DEBUG_LOG) for path, text in edited.items()}
        if self.environment.timed:
            edited = {path: with_access_log(text, ACCESS_LOG) for path, text in edited.items()}
        return edited

    # --- serve ----------------------------------------------------------------------------

    def _serve(self) -> None:
        script = f'exec nginx "$@" > {OUTPUT} 2>&1'
        words = [word for word in self._words() if word != "-q"]
        if self.traced:
            words += ["-g", f"error_log {DEBUG_LOG} debug;"]
        self.nginx.start(["sh", "-c", script, "nginx", *words])

    def await_nginx(self, host: str, port: int) -> None:
        """Return once nginx listens there; else LabError with nginx's output."""
        if (host, port) in self.awaited:
            return
        self.awaited.add((host, port))
        if not self._execute({"host": host, "port": port, "seconds": START_SECONDS}):
            output = self.nginx.run(["cat", OUTPUT]).stdout
            words = output.decode(errors="replace").strip() or "no output"
            raise LabError(f"nginx does not listen on {host}:{port}\n{words}")

    def send(self, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Send a plan's requests from nginx's namespace; records in the order of the responses."""
        pem = self.environment.pem
        records: list[dict[str, Any]] = self._execute({**plan, "pem": pem})
        return records

    def _execute(self, plan: Mapping[str, Any]) -> Any:
        words = ["python3", "-c", source(client)]
        near = str(self.containers.near.id)
        return json.loads(session.output(near, words, LIFE, json.dumps(plan)))

    def refuse_connections(self, endpoints: Sequence[str]) -> None:
        """Make exactly these stub backends ("10.0.0.5:8000") refuse connections."""
        close = ["python3", "-c", source(stub), "close", *endpoints]
        for stubs in self.containers.stubs:
            session.output(str(stubs.id), close, LIFE)

    def debug_log(self) -> list[bytes]:
        """The debug log's lines on requests, picks and releases; none without a debug log."""
        if not self.traced:
            return []
        program = (ROOT / "nginx/trace.awk").read_text()
        words = ["awk", "-v", f"width={LONGEST_LINE}", program, DEBUG_LOG]
        return self.nginx.lines(words)

    def access_log(self) -> list[bytes]:
        """The lines of the lab's access log; none where the config has no such log."""
        return self.nginx.lines(["cat", ACCESS_LOG])

    def hold_workers(self, count: str) -> None:
        """Stop all workers but the first, so that one worker's state is seen.

        `count` is the config's number of workers; they may still be starting.
        """
        script = r"""
            want=$1; [ "$want" = auto ] && want=$(nproc)
            for _ in $(seq 100); do
                set -- $(grep -l 'nginx: [w]orker process' /proc/[0-9]*/cmdline 2>/dev/null |
                    cut -d/ -f3 | sort -n)
                [ $# -ge "$want" ] && break
                sleep 0.02
            done
            [ $# -gt 1 ] && shift && kill -STOP "$@"
            true"""
        self.nginx.run(["sh", "-c", script, "hold", count])
