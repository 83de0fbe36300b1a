"""An upstream: its servers, its method, its retry rules."""

from dataclasses import dataclass

from . import methods


@dataclass(frozen=True, slots=True)
class Server:
    """One `server` line; `name` is its text in the config, which the consistent hash hashes."""

    name: str
    weight: int = 1
    max_fails: int = 1
    fail_timeout: int = 10
    max_conns: int = 0
    backup: bool = False
    down: bool = False
    drain: bool = False
    route: str = ""
    resolve: bool = False


@dataclass(frozen=True, slots=True)
class Sticky:
    """The `sticky` directive: `kind` is cookie, route or learn; `lookups` are nginx variables."""

    kind: str
    lookups: tuple[str, ...]
    create: tuple[str, ...] = ()
    header: bool = False


@dataclass(frozen=True, slots=True)
class NextUpstream:
    """`proxy_next_upstream` and its limits; 0 tries or 0 seconds means no limit."""

    conditions: frozenset[str] = frozenset({"error", "timeout"})
    tries: int = 0
    timeout: float = 0.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """A named group of servers and the method that picks among them.

    `method` is the name of the Method that nginx runs. `key` is the text of the hash key
    ("$request_uri"); `measure` is least_time's: header or last_byte, followed by " inflight"
    where that is given. `line` is 0 for a group without an `upstream` block; `stream` marks one
    of nginx's stream module, which carries no HTTP.
    """

    servers: tuple[Server, ...]
    method: str = methods.DEFAULT.name
    key: str = ""
    measure: str = ""
    sticky: Sticky | None = None
    zone: bool = True
    next_upstream: NextUpstream = NextUpstream()
    name: str = "llm"
    file: str = ""
    line: int = 0
    stream: bool = False

    @property
    def where(self) -> str:
        """The file and the line of its block; the file alone for a group without a block."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def record(self) -> methods.Method:
        """The method's record; UsageError for a method that nginx does not have."""
        return methods.method(self.method)

    @property
    def label(self) -> str:
        """The lab's name for the method: sticky if it has one, else the method itself."""
        return methods.STICKY.name if self.sticky else self.method
