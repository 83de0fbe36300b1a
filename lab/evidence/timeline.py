"""The timeline of a run: its events, and the windows in which each claim is judged."""

from dataclasses import dataclass, field

FIRST_CLAIM = "upstream.conf"


@dataclass(frozen=True, slots=True)
class Event:
    """Something done to the lab `at` seconds after the load began.

    `do` is one of: fault: inject `kind` (with its `value`) into `backend`, which is backend-N, all
    (backends) or nginx; heal: repair `backend` (all by default); scale: change to `backends`
    backends; use: switch to `method`, with `weights` and `key`; reload: reload nginx.
    """

    at: float
    do: str
    backend: str = "all"
    kind: str = ""
    value: float | None = None
    backends: int | None = None
    method: str = ""
    weights: tuple[int, ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """One event as it happened: seconds after the run began, and the error if it failed."""

    event: Event
    began: float
    ended: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Tenure:
    """A backend's address, and from when it had it, in seconds since the epoch."""

    address: str
    backend: str
    since: float


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a run in which nginx's picks are judged; seconds since the epoch.

    `claim` is the run folder's file with nginx's upstream; `fresh` says that nginx was reloaded
    just before `start`; `after` is the event before it. `end` is None if the window ends with the
    run. `again` marks a later window after the same event, used if the earlier one is UNSURE.
    """

    start: float
    end: float | None = None
    claim: str = FIRST_CLAIM
    fresh: bool = True
    after: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Incident:
    """A change of a service's state that no event of the timeline explains.

    `what` describes it ("exited with code 137"); `at` is in seconds since the epoch.
    """

    service: str
    what: str
    at: float


@dataclass(slots=True)
class Timeline:
    """The events of a run, appended while it runs; seconds since the epoch.

    `backends` names those at the start. `mended` is when everything was healthy again; None if
    nothing was broken, or something still is.
    """

    began: float
    backends: tuple[str, ...] = ()
    tenures: list[Tenure] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    mended: float | None = None
