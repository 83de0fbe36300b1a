"""What it takes to account for a run in which the lab broke: addresses, whole logs, faults."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import inf

from ..accounts.fates import ALL, REMOVAL, Fault, Rules, Tenure
from ..nginxconf.model import Upstream
from ..stack import compose, nginx
from ..stack.compose import Lab
from ..stack.shell import poll
from ..traffic.scenario import Event

STILL = 0.5  # seconds for which a log that is whole stays as it is
MOST_SECONDS = 20.0  # until a log is taken as it is, though somebody else still adds to it


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
        over: list[Fault] = []
        if each.error:
            continue
        if event.do == "fault":
            every = [f"backend-{number}" for number in range(1, backends + 1)]
            hit = every if event.backend == ALL else [event.backend]
            open_ += [Fault(name, event.kind, start, story.mended) for name in hit]
        elif event.do == "heal":
            broken_ = [fault for fault in open_ if fault.kind != REMOVAL]
            over = [fault for fault in broken_ if event.backend in (ALL, fault.target)]
        elif event.do == "scale" and event.backends:
            there = {f"backend-{number}" for number in range(1, event.backends + 1)}
            over = [fault for fault in open_ if fault.kind == REMOVAL and fault.target in there]
            gone = range(event.backends + 1, backends + 1)
            open_ += [Fault(f"backend-{number}", REMOVAL, start) for number in gone]
            backends = event.backends
        found += [replace(fault, end=end) for fault in over]
        open_ = [fault for fault in open_ if fault not in over]
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
    lengths = [-1]

    def still(text: bytes) -> bool:
        lengths.append(len(text))
        return lengths[-1] == lengths[-2]

    return poll(read, still, MOST_SECONDS, interval=STILL)
