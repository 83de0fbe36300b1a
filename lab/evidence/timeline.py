"""The timeline of a run: its events, and the windows in which each claim is judged."""

from dataclasses import dataclass, field

FIRST_CLAIM = "upstream.conf"


@dataclass(frozen=True, slots=True)
class Event:
    """Something done to the lab `at` seconds after the load began.

    `do` fault: `kind` (with its `value`) befalls `backend`, which is backend-N, all (backends),
    or nginx. heal: mend `backend` (all, if not given). scale: have `backends` backends. use:
    switch to `method`, with `weights` and `key`. reload: reload nginx.
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
    """From when on a backend had an address, in seconds since the epoch, until another had it."""

    address: str
    backend: str
    since: float


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a run in which nginx's picks are judged; seconds since the epoch.

    `claim` is the file of the run folder that holds the upstream nginx had; `fresh` says that
    nginx was reloaded just before `start`; `after` is what was done to the lab before it. `end`
    is None where the stretch ends with the run.
    """

    start: float
    end: float | None = None
    claim: str = FIRST_CLAIM
    fresh: bool = True
    after: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """A change of a service's state that no event of the timeline explains.

    `what` says it ("exited with code 137"); `at` is when, in seconds since the epoch.
    """

    service: str
    what: str
    at: float


@dataclass(slots=True)
class Timeline:
    """What happened to a lab during a run, appended to while it goes on; seconds since the epoch.

    `backends` are those at the start, `mended` is when everything was healthy again (None: it
    never was broken, or still is).
    """

    began: float
    backends: tuple[str, ...] = ()
    tenures: list[Tenure] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    mended: float | None = None
