"""A run's folder: what was claimed, what was sent, what every side logged; read and written."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .access_log import Hit


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a verdict is made from.

    `claim` is the upstream.conf that the lab wrote; `configuration` what nginx read; `access`
    nginx's JSON log; `journal` the backends' own lines; `ab` what ApacheBench printed, if it
    ran; `sent` how many requests the client says it made; `addresses` the `server` text behind
    each address that nginx logs.
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


TEXTS = {"claim": "upstream.conf", "configuration": "nginx-T.conf", "ab": "ab.txt"}
LOGS = {"access": "access.jsonl", "journal": "backends.jsonl"}


def write(evidence: Evidence, folder: Path) -> None:
    """Write the folder; it must not be there yet."""
    folder.mkdir(parents=True)
    for name, file in TEXTS.items():
        (folder / file).write_text(getattr(evidence, name))
    for name, file in LOGS.items():
        (folder / file).write_bytes(getattr(evidence, name))
    rest = {k: v for k, v in asdict(evidence).items() if k not in TEXTS and k not in LOGS}
    (folder / "run.json").write_text(json.dumps(rest, indent=1) + "\n")


def read(folder: Path) -> Evidence:
    """Read a run's folder; UsageError naming what is missing or broken in it."""
    try:
        texts = {name: (folder / file).read_text() for name, file in TEXTS.items()}
        logs = {name: (folder / file).read_bytes() for name, file in LOGS.items()}
        rest: dict[str, Any] = json.loads((folder / "run.json").read_text())
        return Evidence(**{**rest, **texts, **logs})
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}", "lab judge .lab/runs/<time>-<method>"
        ) from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{folder}/run.json is not a run's: {error}", "lab run METHOD") from None


def journal_lines(journal: bytes) -> Iterable[dict[str, object]]:
    """The backends' lines that carry a request id; others are not about requests."""
    for line in journal.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("id"):
            yield entry


def clock_doubt(hits: Sequence[Hit], journal: bytes) -> float:
    """How far nginx's clock was behind, in ms: 99 of 100 requests reached their backend within it.

    nginx reads its clock once a turn of its loop, so on a busy machine a time in its log is older
    than what it tells of. The backends note a request's arrival by the machine's own clock.
    """
    began = {
        hit.request_id: hit.msec - hit.request_time for hit in hits if len(hit.upstream_addr) == 1
    }
    lags = sorted(
        abs(float(str(entry["start"])) - began[str(entry["id"])]) * 1e3
        for entry in journal_lines(journal)
        if entry["id"] in began and "start" in entry
    )
    return lags[len(lags) * 99 // 100] if lags else 0.0
