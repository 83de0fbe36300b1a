"""Every kind of fault, one record each: who does it, its value, what it can cause.

The command's help, the check of scenarios, the accounting of requests and docs/faults.md come from
these records.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class By(StrEnum):
    """Who does a fault."""

    ENGINE = "engine"  # Docker, to the container of a backend or of nginx
    BACKEND = "backend"  # the backend's own behaviour, set at its behaviour port
    NGINX = "nginx"  # nginx itself, on a signal


class Failure(StrEnum):
    """How a request to the broken service fails, as its client sees it."""

    BROKEN = "broken off"
    TIMEOUT = "timeout"
    ERROR = "answered an error"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Value:
    """The number that a fault takes: what it counts, the usual one, the range."""

    meaning: str
    usual: float
    least: float
    most: float
    soak: float  # the one that `lab soak` takes


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault.

    `what` says what happens; `get`, `post` and `stream` what becomes of a request that is in flight
    on the broken service ("" in `post` or `stream`: the same as of a GET). `failures` are what
    such a request can fail by. `takes_lines` says that log lines may be lost with it.
    `soak_on_nginx` and `soak_on_all` say whether `lab soak` does it to nginx, to all backends.
    """

    name: str
    by: By
    what: str
    failures: frozenset[Failure] = frozenset()
    value: Value | None = None
    takes_lines: bool = False
    soak_on_nginx: bool = False
    soak_on_all: bool = False
    get: str = "nothing"
    post: str = ""
    stream: str = ""


OFF_OR_LATE = frozenset({Failure.BROKEN, Failure.TIMEOUT})
LATE = frozenset({Failure.TIMEOUT})

KINDS: Mapping[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind(
            "kill",
            By.ENGINE,
            "SIGKILL",
            OFF_OR_LATE,
            takes_lines=True,
            soak_on_nginx=True,
            soak_on_all=True,
            get="client: 200; nginx: next server; executed: begun twice",
            post="client: 502; nginx: no retry; executed: begun once, its journal lost",
            stream="client: 502, or cut off if it had begun; no retry; begun once",
        ),
        FaultKind(
            "stop",
            By.ENGINE,
            "SIGTERM (nginx: SIGQUIT); it finishes the requests that it has",
            OFF_OR_LATE,
            get="client: 200; finished first (20 s); executed once",
        ),
        FaultKind(
            "restart",
            By.ENGINE,
            "stopped and started: a backend at **another address**, which nginx does not know"
            " until `lab heal`",
            OFF_OR_LATE,
            soak_on_nginx=True,
            get="as stop; then 2 s for each request that tries the old address",
        ),
        FaultKind(
            "pause",
            By.ENGINE,
            "frozen: the kernel takes connections, nothing answers",
            LATE,
            soak_on_nginx=True,
            soak_on_all=True,
            get="client: waits, then 200; nginx: waits (`proxy_read_timeout` 600 s); executed once",
            stream="the same; a pause in the middle",
        ),
        FaultKind(
            "cut",
            By.ENGINE,
            "off the network; it keeps running",
            OFF_OR_LATE,
            soak_on_all=True,
            get="client: waits until the network is back, then 200; executed once."
            " A connection that is reset: as kill",
        ),
        FaultKind(
            "slow",
            By.BACKEND,
            "every duration times the value",
            LATE,
            Value("factor", 4.0, 1, 1000, soak=4.0),
            get="client: 200, late; executed once",
        ),
        FaultKind(
            "error_rate",
            By.BACKEND,
            "this share of the requests gets a 500",
            frozenset({Failure.ERROR}),
            Value("share", 1.0, 0, 1, soak=0.5),
            get="client: 500; nginx: passes it on, no failure counted; not executed",
        ),
        FaultKind(
            "drop",
            By.BACKEND,
            "the connection ends inside the answer, a stream's after so many tokens; 0: before its"
            " first byte",
            frozenset({Failure.BROKEN}),
            Value("tokens", 1.0, 0, 1_000_000, soak=1.0),
            get="client: cut off; nginx: no retry, for the answer had begun; executed once."
            " With 0: client: 200; nginx: next server; executed twice",
            post="client: cut off; executed once. With 0: client: 502; no retry; executed once",
            stream="client: cut off after so many tokens. With 0: client: 502",
        ),
        FaultKind(
            "hang",
            By.BACKEND,
            "requests are held until it is healed",
            LATE,
            get="client: waits, then 200; nginx: waits (`proxy_read_timeout` 600 s); executed once",
        ),
        FaultKind(
            "malformed_json",
            By.BACKEND,
            "JSON without its last character",
            frozenset({Failure.MALFORMED}),
            get="client: 200 and text; executed once",
            post="client: 200, broken JSON; nginx: does not look",
            stream="client: 200, broken events",
        ),
        FaultKind("refuse_health", By.BACKEND, "`/health` answers 503; nginx does not ask for it"),
        FaultKind("reload", By.NGINX, "nginx reads its configuration again"),
    )
}


def names(*by: By) -> tuple[str, ...]:
    """The kinds that one of these does."""
    return tuple(kind.name for kind in KINDS.values() if kind.by in by)


def failures(kind: str) -> frozenset[Failure]:
    """What a fault can make a request fail by; nothing for a kind that is none."""
    return KINDS[kind].failures if kind in KINDS else frozenset()


def help_text() -> str:
    """The kinds as the help of `lab fault` lists them."""
    parts = (
        ("Of every service", By.ENGINE),
        ("Of backends", By.BACKEND),
        ("Of nginx", By.NGINX),
    )
    return "\n\n".join(
        f"{whose}: {'; '.join(_listed(KINDS[name]) for name in names(by))}." for whose, by in parts
    )


def _listed(kind: FaultKind) -> str:
    what = kind.what.replace("`", "").replace("**", "").replace("; ", ", ")
    value = f", {kind.value.meaning} {kind.value.usual:g}" if kind.value else ""
    return f"{kind.name} ({what}{value})"
