"""What it takes to account for a run in which the lab broke: addresses, whole logs, faults."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import inf

from lab import compose, nginx
from lab.accounting import Fault, Rules, Tenure
from lab.compose import Lab
from lab.scenario import Event
from lab.upstream import Upstream

STILL = 0.5  # seconds for which a log that is whole stays as it is


@dataclass(frozen=True, slots=True)
class Done:
    """One event of a timeline as it happened: seconds after the start, and what it came to."""

    event: Event
    began: float
    ended: float
    error: str = ""


@dataclass(slots=True)
class Story:
    """What happens to a lab in a run, written down as it goes on; moments since the epoch.

    `mended` is when all was whole again.
    """

    began: float
    tenures: list[Tenure]
    done: list[Done] = field(default_factory=list)
    mended: float = inf


def tenures(lab: Lab, began: float, joined: float) -> Iterator[Tenure]:
    """Which backend has which address, and since when.

    That is since its start, if that was after `began`; it may else have joined the network anew.
    """
    for each in compose.backend_containers(lab):
        if address := compose.address(each):
            started = compose.started(each)
            since = started if started >= began else joined
            yield Tenure(f"{address}:{compose.BACKEND_PORT}", compose.service(each), since)


def broken(story: Story, backends: int) -> list[Fault]:
    """The faults of a story, each until it was mended; a backend taken away is one as well.

    `backends` is how many there were at first.
    """
    found: list[Fault] = []
    open_: list[Fault] = []
    for each in story.done:
        event, start, end = each.event, story.began + each.began, story.began + each.ended
        if each.error:
            continue
        if event.do == "fault":
            open_.append(Fault(event.backend, event.kind, start, story.mended))
        elif event.do == "heal":
            healed = [fault for fault in open_ if event.backend in ("all", fault.target)]
            found += [replace(fault, end=end) for fault in healed]
            open_ = [fault for fault in open_ if fault not in healed]
        elif event.do == "scale" and event.backends:
            gone = range(event.backends + 1, backends + 1)
            found += [Fault(f"backend-{number}", "removal", start) for number in gone]
            backends = event.backends
    return [*found, *open_]


def rules_of(claim: Upstream, story: Story) -> Rules:
    """What nginx was told, for every backend that there was."""
    return Rules(
        frozenset(tenure.backend for tenure in story.tenures),
        max(server.fail_timeout for server in claim.servers),
        "non_idempotent" in claim.next_upstream.conditions,
    )


def log_of(lab: Lab, mark: int, sure: int) -> bytes:
    """nginx's evidence since a mark: at least the lines that no kill can have taken with it."""
    nginx.log_with(lab, mark, sure)
    return _whole(lambda: nginx.log_since(lab, mark))


def journal_of(lab: Lab, began: float, sure: int) -> bytes:
    """The backends' lines since a moment: at least those that no kill can have taken with it."""
    return _whole(lambda: compose.journals(lab, began, sure))


def _whole(read: Callable[[], bytes]) -> bytes:
    """A log that nobody adds to any more: its length cannot be known where a kill took lines."""
    text = read()
    while True:
        time.sleep(STILL)  # the interval of a poll that ends when nothing changes
        if len(again := read()) == len(text):
            return again
        text = again
