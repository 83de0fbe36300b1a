"""Gather what every side logged of some traffic into one run folder."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..accounts.fates import losable, of_record
from ..accounts.faults import faults_of
from ..evidence import folder
from ..evidence.folder import Evidence, Kind
from ..evidence.record import Record
from ..evidence.timeline import FIRST_CLAIM, Tenure, Timeline, Window
from ..paths import runs_folder
from ..stack import compose, faults, nginx
from ..stack.compose import Lab
from ..stack.shell import poll

SETTLED = 0.5  # seconds without a new line after which a log is taken as complete
SETTLE_SECONDS = 20.0  # at most, though somebody else may still be adding to it


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client says of its traffic: requests that reached nginx, its records, ab's output."""

    reached: int
    records: tuple[Record, ...] = ()
    ab: str = ""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where the evidence of one run begins: `log` bytes into nginx's log, at `timeline.began`.

    Make it with `begin` before the traffic; `collect` writes the folder after it.
    """

    lab: Lab
    claim: str
    log: int
    timeline: Timeline
    claims: dict[str, str] = field(default_factory=dict)

    def claim_again(self) -> str:
        """Keep the claim that nginx has now beside the earlier ones; its file in the folder."""
        text = (self.lab.active / FIRST_CLAIM).read_text()
        known = {self.claim: FIRST_CLAIM, **{kept: name for name, kept in self.claims.items()}}
        name = known.get(text, f"upstream-{len(self.claims) + 2}.conf")
        if name != FIRST_CLAIM:
            self.claims[name] = text
        return name

    def collect(
        self,
        sent: Sent,
        *,
        kind: Kind,
        method: str,
        traffic: str,
        sequential: bool = False,
        scenario: Mapping[str, Any] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Path:
        """Wait until every side has logged what was sent; return the run folder that holds it."""
        access, journal = self._logs(sent)
        evidence = Evidence(
            kind=kind,
            method=method,
            traffic=traffic,
            sequential=sequential,
            sent=sent.reached,
            addresses=faults.known(self.lab),
            claim=self.claim,
            configuration=nginx.configuration(self.lab),
            access=access,
            journal=journal,
            ab=sent.ab,
            notes=notes or {},
            claims=self.claims,
            records=sent.records,
            timeline=self.timeline,
            scenario=scenario,
        )
        place = fresh_folder(traffic_name(kind, method, traffic))
        folder.write(evidence, place)
        return place

    def _logs(self, sent: Sent) -> tuple[bytes, bytes]:
        """nginx's log and the backends' journals of what was sent."""
        calls = [of_record(record) for record in sent.records if record.error != "unsent"]
        lost = losable(calls, faults_of(self.timeline))
        return logs(self.lab, self.log, self.timeline.began, sent.reached, lost)


def logs(lab: Lab, mark: int, began: float, reached: int, lost: int) -> tuple[bytes, bytes]:
    """nginx's log since `mark` and the backends' journals since `began`, of `reached` requests.

    A kill may have taken the lines of `lost` of them: then a log is read until it stays as it is.
    """
    access = nginx.log_with(lab, mark, reached - lost)
    if not lost:
        return access, compose.journals(lab, began, access.count(b"\n"))
    return (
        _settled(lambda: nginx.log_since(lab, mark)),
        _settled(lambda: compose.journals(lab, began, reached - lost)),
    )


def begin(lab: Lab) -> Collector:
    """Note what nginx was told, where the logs end now, and which backend has which address."""
    claim = (lab.active / FIRST_CLAIM).read_text()
    log, began = nginx.log_size(lab), time.time()
    names = tuple(compose.service(each) for each in compose.backend_containers(lab))
    timeline = Timeline(began, names, list(tenures(lab, began, began)), windows=[Window(began)])
    return Collector(lab, claim, log, timeline)


def tenures(lab: Lab, began: float, joined: float) -> Iterator[Tenure]:
    """Which backend has which address, and since when.

    That is since its start, if that was after `began`; it may else have joined the network anew.
    """
    for container in compose.backend_containers(lab):
        if address := compose.address(container):
            started = compose.started(container)
            since = started if started >= began else joined
            yield Tenure(f"{address}:{compose.BACKEND_PORT}", compose.service(container), since)


def traffic_name(kind: Kind, method: str, traffic: str) -> str:
    """The name of a run's folder, behind its time: the method, after the scenario of a load."""
    return {"run": method, "load": f"{traffic}-{method}"}.get(kind, f"{kind}-{method}")


def fresh_folder(name: str) -> Path:
    """A folder under .lab/runs that no other run has."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    runs = runs_folder()
    candidates = (runs / f"{stamp}-{name}{f'-{n}' if n else ''}" for n in range(1000))
    return next(candidate for candidate in candidates if not candidate.exists())


def _settled(read: Callable[[], bytes]) -> bytes:
    """Read a log until it stops growing; after a kill the number of lines is unknown."""
    lengths = [-1]

    def still(text: bytes) -> bool:
        lengths.append(len(text))
        return lengths[-1] == lengths[-2]

    return poll(read, still, SETTLE_SECONDS, interval=SETTLED)
