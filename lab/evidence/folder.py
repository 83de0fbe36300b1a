"""Write and read a run folder: the claim, the traffic, and all logs.

Every command that judges traffic writes the same kind of folder. Its readers (split, verdict,
fates, figures) use only what this module returns.

    run.json         the command, the method, the traffic, the number of requests sent
    upstream.conf    the claim: the upstream that nginx was given; upstream-2.conf … later ones
    nginx-T.conf     the whole configuration that nginx read
    access.jsonl     nginx's log
    backends.jsonl   the backends' journals
    client.jsonl     one record per request, if the client recorded them
    ab.txt           the output of ApacheBench, if it ran
    timeline.json    the events of the run, and the windows to judge
    scenario.json    the scenario, if one was sent
    trace.log        nginx's debug log of its picks, if it was on
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, TypeVar

from ..errors import UsageError
from . import access_log, journal, record, typed
from .access_log import Hit, Log
from .journal import Entry
from .record import Record
from .timeline import FIRST_CLAIM, Timeline

_T = TypeVar("_T")
Kind: TypeAlias = Literal["run", "load", "soak", "verify", "simulated"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence from which verdicts, fates and figures are computed.

    `claim` is the upstream that nginx had at first, as config text, `claims` what it had later,
    by file name; `configuration` what nginx read; `access` nginx's JSON log; `journal` the
    backends' own lines; `ab` the output of ApacheBench; `sent` how many requests the client
    sent; `addresses` the `server` text of each address that nginx logs; `notes` further data of
    one kind of run; `interrupted` says that the run was stopped before its end, and contains only
    the requests that had ended by then.
    """

    method: str
    traffic: str
    sequential: bool
    sent: int
    addresses: Mapping[str, str]
    claim: str
    configuration: str
    access: bytes
    journal: bytes
    ab: str = ""
    kind: Kind = "run"
    notes: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, str] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    timeline: Timeline | None = None
    scenario: Mapping[str, Any] | None = None
    trace: bytes = b""
    interrupted: bool = False

    def log(self) -> Log:
        """nginx's log, parsed."""
        return access_log.read(self.access.splitlines(keepends=True))

    def entries(self) -> tuple[Entry, ...]:
        """The requests in the backends' journals."""
        return journal.read(self.journal.splitlines()).entries


TEXTS = {"claim": FIRST_CLAIM, "configuration": "nginx-T.conf"}
LOGS = {"access": "access.jsonl", "journal": "backends.jsonl"}
RUN, CLIENT, TIMELINE, SCENARIO = "run.json", "client.jsonl", "timeline.json", "scenario.json"
AB, TRACE = "ab.txt", "trace.log"
_CLAIM = re.compile(r"upstream-\d+\.conf")


@dataclass(frozen=True, slots=True)
class _Run:
    """The content of run.json."""

    method: str
    traffic: str
    sequential: bool
    sent: int
    addresses: Mapping[str, str]
    kind: Kind = "run"
    notes: Mapping[str, Any] = field(default_factory=dict)
    interrupted: bool = False


def write(evidence: Evidence, folder: Path) -> None:
    """Write the folder, which must not exist yet; an interruption leaves nothing."""
    with written_whole(folder) as empty:
        _write_files(evidence, empty)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which becomes `folder` when the block ends without error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        empty = Path(scratch) / folder.name
        empty.mkdir()
        yield empty
        empty.rename(folder)


def _write_files(evidence: Evidence, folder: Path) -> None:
    for name, file in TEXTS.items():
        (folder / file).write_text(getattr(evidence, name), errors="surrogateescape")
    for name, file in LOGS.items():
        (folder / file).write_bytes(getattr(evidence, name))
    for file, text in evidence.claims.items():
        (folder / file).write_text(text, errors="surrogateescape")
    if evidence.ab:
        (folder / AB).write_text(evidence.ab)
    if evidence.trace:
        (folder / TRACE).write_bytes(evidence.trace)
    if evidence.records:
        record.write(evidence.records, folder / CLIENT)
    if evidence.timeline:
        write_json(folder / TIMELINE, asdict(evidence.timeline))
    if evidence.scenario is not None:
        write_json(folder / SCENARIO, evidence.scenario)
    write_json(folder / RUN, {field.name: getattr(evidence, field.name) for field in fields(_Run)})


def write_json(file: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    file.write_text(json.dumps(value, indent=1) + "\n")


def read(folder: Path) -> Evidence:
    """Read a run folder; a UsageError names the file, and its field, that is missing or wrong."""
    if is_simulated(folder):
        raise UsageError(
            f"{folder} is a simulated run: it has no logs to judge",
            f"its figures are in {folder}/figures.json; lab load measures them live",
        )
    try:
        return Evidence(
            **_fields_of_run(folder),
            claim=_text(folder / TEXTS["claim"]),
            configuration=_text(folder / TEXTS["configuration"]),
            access=(folder / LOGS["access"]).read_bytes(),
            journal=(folder / LOGS["journal"]).read_bytes(),
            ab=_optional(folder / AB).decode(errors="replace"),
            trace=_optional(folder / TRACE),
            claims={
                file.name: _text(file)
                for file in sorted(folder.glob("upstream-*.conf"))
                if _CLAIM.fullmatch(file.name)
            },
            records=record.read(folder / CLIENT) if (folder / CLIENT).exists() else (),
            timeline=_read(Timeline, folder / TIMELINE) if (folder / TIMELINE).exists() else None,
            scenario=_read(dict[str, Any], folder / SCENARIO)
            if (folder / SCENARIO).exists()
            else None,
        )
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}", "lab judge .lab/runs/<time>-<method>"
        ) from None


def is_simulated(folder: Path) -> bool:
    """Whether a folder is one of `lab simulate`, which has figures but no logs."""
    try:
        return bool(_fields_of_run(folder)["kind"] == "simulated")
    except (OSError, UsageError):
        return False


def was_interrupted(folder: Path) -> bool:
    """Whether the run of a folder was stopped before its end."""
    return bool(_fields_of_run(folder)["interrupted"])


def _fields_of_run(folder: Path) -> dict[str, Any]:
    """The fields of run.json; those that older folders lack have their defaults."""
    file = folder / RUN
    run = _read(_Run, file)
    if run.sent < 0:
        raise _broken(file, f"sent must not be negative, but is {run.sent}")
    return {field.name: getattr(run, field.name) for field in fields(run)}


def _read(kind: type[_T], file: Path) -> _T:
    """A JSON file as a value of a type."""
    try:
        return typed.read(kind, file.read_bytes())
    except typed.MisfitError as error:
        raise _broken(file, error) from None


def _broken(file: Path, why: object) -> UsageError:
    return UsageError(f"{file} is not a valid run file: {why}", "lab run METHOD")


def _text(file: Path) -> str:
    """A config, in which a comment or a key need not be UTF-8."""
    return file.read_bytes().decode("utf-8", "surrogateescape")


def _optional(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def clock_lag(hits: Sequence[Hit], entries: Sequence[Entry]) -> float:
    """The longest lag of nginx's clock, in ms: every request reached its backend within it.

    nginx reads its clock once per iteration of its event loop, so on a busy machine a time in its
    log is earlier than the event. The backends record a request's arrival by the machine's own
    clock. Infinite times in a damaged log are ignored.
    """
    began = {
        hit.request_id: hit.msec - hit.request_time for hit in hits if len(hit.upstream_addr) == 1
    }
    lags = (
        abs(entry.start - began[entry.id]) * 1e3
        for entry in entries
        if entry.start and entry.id in began
    )
    return max(filter(math.isfinite, lags), default=0.0)


@dataclass(frozen=True, slots=True)
class Listed:
    """A run folder in a list: its kind of run, its size in bytes, whether the run was stopped."""

    path: Path
    kind: str
    method: str
    traffic: str
    sent: int
    size: int
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {**asdict(self), "path": str(self.path)}


def list_runs(runs: Path) -> list[Listed]:
    """Every run folder in a folder, the oldest first; one that cannot be read has kind "?"."""
    folders = sorted(path for path in runs.glob("*") if (path / RUN).is_file())
    return [_listed(path) for path in folders]


def _listed(path: Path) -> Listed:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    try:
        run = _fields_of_run(path)
    except UsageError:
        return Listed(path, "?", "?", "", 0, size)
    kind, method, traffic = run["kind"], run["method"], run["traffic"]
    return Listed(path, kind, method, traffic, run["sent"], size, run["interrupted"])
