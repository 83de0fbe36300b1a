"""The faults of a run, from its timeline, and nginx's retry configuration."""

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from ..evidence.timeline import Done, Timeline
from ..nginxconf.model import Server, Upstream
from .fates import ALL, REMOVAL, Fault, Rules


def faults_of(timeline: Timeline) -> list[Fault]:
    """The faults of a timeline, each until its repair; a removed backend counts as a fault."""
    closed: list[Fault] = []
    open_: list[Fault] = []
    present = len(timeline.backends)
    for done in timeline.done:
        if done.error:
            continue
        end = timeline.began + done.ended
        ended = list(_ended_by(done, open_))
        closed += [replace(fault, end=end) for fault in ended]
        open_ = [fault for fault in open_ if fault not in ended]
        open_ += _begun_by(done, timeline, present)
        present = done.event.backends or present
    return [*closed, *open_]


def _begun_by(done: Done, timeline: Timeline, present: int) -> Iterator[Fault]:
    """The faults that an event begins; scaling down removes the last of `present` backends."""
    event, start = done.event, timeline.began + done.began
    if event.do == "fault":
        mended = inf if timeline.mended is None else timeline.mended
        backends = [f"backend-{number}" for number in range(1, present + 1)]
        for name in backends if event.backend == ALL else [event.backend]:
            yield Fault(name, event.kind, start, mended)
    elif event.do == "scale" and event.backends:
        for number in range(event.backends + 1, present + 1):
            yield Fault(f"backend-{number}", REMOVAL, start)


def _ended_by(done: Done, open_: list[Fault]) -> Iterator[Fault]:
    """The open faults that an event ends."""
    event = done.event
    if event.do == "heal":
        for fault in open_:
            if fault.kind != REMOVAL and event.backend in (ALL, fault.target):
                yield fault
    elif event.do == "scale" and event.backends:
        restored = {f"backend-{number}" for number in range(1, event.backends + 1)}
        yield from (f for f in open_ if f.kind == REMOVAL and f.target in restored)


def rules_of(claim: Upstream, timeline: Timeline) -> Rules:
    """nginx's configuration for every backend of the run."""
    return Rules(
        frozenset(tenure.backend for tenure in timeline.tenures),
        max(server.fail_timeout for server in claim.servers),
        "non_idempotent" in claim.next_upstream.conditions,
        {_backend(server): server.max_conns for server in claim.servers if server.max_conns},
        frozenset(_backend(server) for server in claim.servers if server.down),
    )


def _backend(server: Server) -> str:
    """A server's name as in the journals, without the port."""
    return server.name.rpartition(":")[0]
