"""Collect the logs of nginx, backends and client about a run into one run folder."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..accounts.fates import of_record, possibly_lost_lines
from ..accounts.faults import faults_of
from ..accounts.foreign import LAB_DOOR
from ..errors import LabError
from ..evidence import access_log, folder
from ..evidence.access_log import Hit, Unproxied
from ..evidence.folder import Evidence, Kind
from ..evidence.record import Record
from ..evidence.timeline import FIRST_CLAIM, Event, Incident, Tenure, Timeline, Window
from ..paths import runs_folder
from ..stack import compose, faults, nginx
from ..stack.compose import Lab
from ..stack.shell import poll
from ..verdict import replay

REQUEST_ID = re.compile(rb'"request_id":"([^"]*)"')
# the engine's events that `undone_incidents` needs
WATCHED = ("pause", "disconnect", "kill", "die", "destroy")
_UNDONE = {
    "pause": "paused",
    "disconnect": "disconnected from the network",
    "destroy": "removed",
}
_ENDING = 5.0  # seconds between a container's end and what the engine does because of it
_AROUND = 1.0  # seconds by which an event of the timeline and the engine's time for it may differ
SETTLED = 0.5  # seconds without a new line after which a log is taken as complete
SETTLE_SECONDS = 20.0  # seconds after which a log is taken as it is, although it still grows


@dataclass(frozen=True, slots=True)
class Sent:
    """The client's view of a run: how many requests reached nginx, its records or ab's output."""

    reached: int
    records: tuple[Record, ...] = ()
    ab: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A container's state as the engine reports it; times are seconds since the epoch."""

    id: str
    status: str
    started: float
    finished: float = 0.0
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Collector:
    """The state recorded before a run, used to collect its evidence afterwards.

    Call `begin` before the traffic and `collect` after it. The run's lines begin `log` bytes into
    nginx's log; `states` are the containers' before it, `workers` the ids of nginx's worker
    processes, none if unknown. `claims` are the upstream configs that replaced `claim` during the
    run, by their file names.
    """

    lab: Lab
    claim: str
    log: int
    timeline: Timeline
    states: Mapping[str, State]
    workers: frozenset[int] = frozenset()
    claims: dict[str, str] = field(default_factory=dict)

    def add_current_claim(self) -> str:
        """Add nginx's current upstream config to the claims; return its file in the run folder."""
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
        interrupted: bool = False,
    ) -> Path:
        """Wait until all requests are in the logs; write the run folder and return it.

        Of an `interrupted` run, only the requests that had ended count.
        """
        now = states(self.lab)
        self.timeline.incidents += list(incidents(self.states, now, self.timeline))
        refuse_stopped_nginx(now, self.timeline)
        if interrupted:
            sent, access, journal = self._until_now(sent)
        else:
            access, journal = self._logs(sent, complete=kind != "load")
        if kind in ("run", "load"):
            self._complete_timeline(kind, sent, access)
        evidence = Evidence(
            kind=kind,
            method=method,
            traffic=traffic,
            sequential=sequential,
            sent=sent.reached,
            addresses=faults.known_addresses(self.lab),
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
            trace=nginx.trace_log(self.lab) if nginx.tracing(self.lab) else b"",
            interrupted=interrupted,
        )
        place = fresh_folder(traffic_name(kind, method, traffic))
        folder.write(evidence, place)
        return place

    def _complete_timeline(self, kind: Kind, sent: Sent, access: bytes) -> None:
        """Add the new workers that nginx's log shows; of a load, also the window to judge."""
        log = access_log.read(access.splitlines(keepends=True))
        picked = not self.workers.isdisjoint(hit.pid for hit in log.hits)
        if kind == "load" or picked:  # a run's workers that never picked are not in the log
            self.timeline.incidents += new_workers(log.hits, self.workers, self.timeline)
        if kind == "load":
            lost = unlogged(sent.records, (*log.hits, *log.unproxied))
            self.timeline.windows[:] = [before_first_change(self.timeline, lost)]

    def _until_now(self, sent: Sent) -> tuple[Sent, bytes, bytes]:
        """The requests that had ended when the run was interrupted, and the logs once complete."""
        access = _settled(lambda: nginx.log_since(self.lab, self.log))
        journal = _settled(lambda: compose.journals(self.lab, self.timeline.began, 0))
        records = tuple(record for record in sent.records if record.error != "cut")
        ids = frozenset(record.id for record in records)
        reached = sent.reached if sent.records else count_own_lines(access, ids)
        return replace(sent, reached=reached, records=records), access, journal

    def _logs(self, sent: Sent, complete: bool) -> tuple[bytes, bytes]:
        """nginx's log and the backends' journals for the requests that were sent.

        LabError if nginx's must be `complete` and is not; else the accounts name what is missing.
        """
        calls = [of_record(record) for record in sent.records if record.error != "unsent"]
        lost = possibly_lost_lines(calls, faults_of(self.timeline))
        ids = frozenset(record.id for record in sent.records)
        try:
            return logs(self.lab, self.log, self.timeline.began, sent.reached, lost, ids)
        except nginx.MissingLinesError:
            if complete:
                raise
        return logs(self.lab, self.log, self.timeline.began, sent.reached, sent.reached, ids)


def keep_evidence(stopped: BaseException, collect: Callable[[], Path]) -> None:
    """Collect the evidence of an interrupted run; note on the interruption where it is.

    A second interruption ends this at once and leaves no folder.
    """
    try:
        place = collect()
    except LabError as error:
        stopped.add_note(f"stopped; the evidence could not be collected: {error.message}")
        return
    sent = folder.read(place).sent
    stopped.add_note(f"stopped after {sent:,} requests; to judge those: lab judge {place}")


def logs(
    lab: Lab, mark: int, began: float, reached: int, lost: int, ids: frozenset[str] = frozenset()
) -> tuple[bytes, bytes]:
    """Wait for the lines of `reached` requests; return nginx's log and the backends' journals.

    nginx's log is read from byte `mark`, the journals from the time `began`. `ids` are the
    requests' ids; without ids, the lines of the lab door are counted. If a killed container may
    have lost the lines of `lost` requests, both are read until they stop growing.
    """
    access = nginx.log_with(lab, mark, reached - lost, lambda log: count_own_lines(log, ids))
    if not lost:
        return access, compose.journals(lab, began, access.count(b"\n"))
    return (
        _settled(lambda: nginx.log_since(lab, mark)),
        _settled(lambda: compose.journals(lab, began, reached - lost)),
    )


def count_own_lines(log: bytes, ids: frozenset[str]) -> int:
    """Count the lines of nginx's log with these request ids; without ids, those of the lab door."""
    if not ids:
        return log.count(b'"server_port":"%d"' % LAB_DOOR)
    return sum(request_id.decode() in ids for request_id in REQUEST_ID.findall(log))


def begin(lab: Lab) -> Collector:
    """Record nginx's upstream config, the length of its log, each backend's address and state."""
    claim = (lab.active / FIRST_CLAIM).read_text()
    log, began = nginx.log_size(lab), time.time()
    names = tuple(compose.service(container) for container in compose.backend_containers(lab))
    timeline = Timeline(began, names, list(tenures(lab, began, began)), windows=[Window(began)])
    return Collector(lab, claim, log, timeline, states(lab))


def states(lab: Lab) -> dict[str, State]:
    """The state of nginx and of every backend, by service."""
    by_backend = {}
    for container in compose.containers(lab):
        state = container.attrs["State"]
        by_backend[compose.service(container)] = State(
            str(container.id),
            str(state["Status"]),
            compose.moment(state["StartedAt"]),
            compose.moment(state["FinishedAt"]),
            int(state["ExitCode"]),
        )
    return by_backend


def incidents(
    before: Mapping[str, State], after: Mapping[str, State], timeline: Timeline
) -> Iterator[Incident]:
    """Yield each change of a container's state that no event of the timeline explains."""
    touched = {name for done in timeline.done for name in _touched(done.event, before)}
    for service, old in before.items():
        if service in touched:
            continue
        new = after.get(service)
        if new is None or new.id != old.id:
            by_event = [one for one in timeline.incidents if one.service == service]
            if not any(one.what == "was removed" for one in by_event):
                yield Incident(service, "was removed", time.time())
        elif new.started != old.started:
            code = f" with code {new.exit_code}" if new.exit_code else ""
            ended = new.finished if new.finished > old.started else new.started
            yield Incident(service, f"ended{code} and was started again", ended)
        elif new.status != old.status:
            ended = new.finished if new.finished > new.started else time.time()
            yield Incident(service, _ending(new), ended)


def undone_incidents(
    events: Sequence[Mapping[str, Any]], services: Mapping[str, State], timeline: Timeline
) -> Iterator[Incident]:
    """Yield the engine's events that a later state does not show, or without their moment.

    They are a pause, a disconnection from a network, a signal that does not end a process, and the
    removal of a container; those by an event of the timeline, and disconnections of containers that
    ended, are left out.
    """
    names = {state.id: service for service, state in services.items()}
    seen: list[tuple[str, str, float, Mapping[str, str]]] = []
    for event in events:
        attributes = event["Actor"]["Attributes"]
        if (container := attributes.get("container", event["Actor"]["ID"])) in names:
            seen.append((names[container], event["Action"], event["timeNano"] / 1e9, attributes))
    ends = [(service, moment) for service, action, moment, _ in seen if action == "die"]
    reported: dict[tuple[str, str], float] = {}
    for service, action, moment, attributes in seen:
        if reported.get((service, action), 0.0) > moment - _AROUND:
            continue  # the engine reports a disconnection twice
        ended = any(name == service and abs(at - moment) < _ENDING for name, at in ends)
        if ended and action != "destroy":
            continue
        planned = (done for done in timeline.done if service in _touched(done.event, services))
        since = moment - timeline.began
        if any(done.began - _AROUND <= since <= done.ended + _AROUND for done in planned):
            continue
        reported[service, action] = moment
        signal = f"sent signal {attributes.get('signal')}"
        yield Incident(service, f"was {_UNDONE.get(action, signal)}", moment)


def refuse_stopped_nginx(now: Mapping[str, State], timeline: Timeline) -> None:
    """Raise LabError with what stopped nginx, and when: its log cannot be read."""
    if "nginx" in now and now["nginx"].status == "running":
        return
    for incident in timeline.incidents:
        if incident.service == "nginx":
            when = f"{incident.at - timeline.began:.1f} s after the run began"
            again = "lab heal (lab up if nginx was removed), then run the command again"
            raise LabError(f"nginx {incident.what} {when}, so its log cannot be read", again)


def new_workers(
    hits: Iterable[Hit], known: frozenset[int], timeline: Timeline
) -> Iterator[Incident]:
    """Yield an incident if nginx has new workers and the timeline does not explain them.

    nginx was reloaded, or a worker was killed; either way nginx lost its turns and loads.
    """
    moments = [replay.start(hit) for hit in hits if known and hit.pid not in known]
    if not moments or any(incident.service == "nginx" for incident in timeline.incidents):
        return
    first = min(moments)
    before = [done.event for done in timeline.done if timeline.began + done.began <= first]
    if not any(event.do != "fault" or event.backend == "nginx" for event in before):
        yield Incident("nginx", "has new workers: it was reloaded, or a worker was killed", first)


def unlogged(records: Iterable[Record], lines: Iterable[Hit | Unproxied]) -> list[float]:
    """When the requests were sent that nginx did not log, as those of a worker that was killed."""
    logged = {line.request_id for line in lines}
    return [r.sent for r in records if r.sent is not None and r.id not in logged]


def before_first_change(timeline: Timeline, lost: Iterable[float] = ()) -> Window:
    """The time from the start to the first event or incident, in which picks can be judged.

    It ends before the first of the `lost` requests, because its turn is missing from nginx's log.
    """
    changes = [timeline.began + done.began for done in timeline.done]
    changes += [incident.at for incident in timeline.incidents if incident.service == "nginx"]
    return Window(timeline.began, min([*changes, *lost], default=None))


def _touched(event: Event, services: Iterable[str]) -> Iterable[str]:
    """The services whose state an event may change."""
    if event.do in ("scale", "heal") or (event.do == "fault" and event.backend == "all"):
        return services
    return [event.backend] if event.do == "fault" else []


def _ending(state: State) -> str:
    """A container's state in words."""
    if state.status == "exited" or state.exit_code:
        return f"exited with code {state.exit_code}"
    return f"is {state.status}"


def tenures(lab: Lab, began: float, joined: float) -> Iterator[Tenure]:
    """Yield each backend's address and since when it has it.

    A backend that started after `began` has it since its start; any other since `joined`, because
    it may have been reconnected to the network.
    """
    for container in compose.backend_containers(lab):
        if address := compose.address(container):
            started = compose.started(container)
            since = started if started >= began else joined
            yield Tenure(f"{address}:{compose.BACKEND_PORT}", compose.service(container), since)


def traffic_name(kind: Kind, method: str, traffic: str) -> str:
    """A run folder's name after its time: the scenario of a load or the kind, then the method."""
    return {"run": method, "load": f"{traffic}-{method}"}.get(kind, f"{kind}-{method}")


def fresh_folder(name: str) -> Path:
    """The path of a run folder that does not exist yet; git ignores all run folders."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    runs = runs_folder()
    if not runs.exists():  # do not write into a folder that the user made
        runs.mkdir(parents=True, exist_ok=True)
        (runs / ".gitignore").write_text("*\n")
    candidates = (runs / f"{stamp}-{name}{f'-{n}' if n else ''}" for n in range(1000))
    return next(candidate for candidate in candidates if not candidate.exists())


def _settled(read: Callable[[], bytes]) -> bytes:
    """Read a log until it stops growing; after a kill the number of lines is unknown."""
    lengths = [-1]

    def has_stopped_growing(text: bytes) -> bool:
        lengths.append(len(text))
        return lengths[-1] == lengths[-2]

    return poll(read, has_stopped_growing, SETTLE_SECONDS, interval=SETTLED)
