"""Every kind of fault, one record each: its implementation, its value, its effects.

The command's help, the check of scenarios, the accounting of requests and docs/faults.md use these
records.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from textwrap import wrap


class By(StrEnum):
    """What implements a fault."""

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
    """The number that a fault takes: its meaning, its default and its range."""

    meaning: str
    usual: float
    least: float
    most: float
    soak: float  # the value that `lab soak` uses


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault.

    `what` is its effect on the service; `get`, `post` and `stream` the effect on a request in
    flight there ("" in `post` or `stream`: the same as for GET). `failures` are the ways in which
    such a request can fail. `loses_log_lines` says that log lines may be lost, `freezes` that
    tokens are delayed while their timing model continues. `soak_on_nginx` and `soak_on_all` say
    whether `lab soak` applies it to nginx, and to all backends at once.
    """

    name: str
    by: By
    what: str
    failures: frozenset[Failure] = frozenset()
    value: Value | None = None
    loses_log_lines: bool = False
    freezes: bool = False
    soak_on_nginx: bool = False
    soak_on_all: bool = False
    get: str = "nothing"
    post: str = ""
    stream: str = ""


BROKEN_OR_TIMEOUT = frozenset({Failure.BROKEN, Failure.TIMEOUT})
TIMEOUT_ONLY = frozenset({Failure.TIMEOUT})

KINDS: Mapping[str, FaultKind] = {
    kind.name: kind
    for kind in (
        FaultKind(
            "kill",
            By.ENGINE,
            "ends its processes with SIGKILL",
            BROKEN_OR_TIMEOUT,
            loses_log_lines=True,
            soak_on_nginx=True,
            soak_on_all=True,
            get="the client gets 200 from the next server; started twice",
            post="the client gets 502, no retry; started once, and its journal is lost",
            stream="the client gets 502, or a stream that is cut off; no retry; started once",
        ),
        FaultKind(
            "stop",
            By.ENGINE,
            "sends SIGTERM (to nginx SIGQUIT); requests in flight are finished first",
            BROKEN_OR_TIMEOUT,
            get="the client gets 200 (within 20 s); executed once",
        ),
        FaultKind(
            "restart",
            By.ENGINE,
            "stops and starts it; a backend then has **another address**, which nginx does not"
            " know until `lab heal`",
            BROKEN_OR_TIMEOUT,
            soak_on_nginx=True,
            get="as stop; then each request that tries the old address takes 2 s longer",
        ),
        FaultKind(
            "pause",
            By.ENGINE,
            "freezes its processes; the kernel accepts connections, but nothing answers",
            TIMEOUT_ONLY,
            freezes=True,
            soak_on_nginx=True,
            soak_on_all=True,
            get="the client waits, then gets 200 (`proxy_read_timeout` is 600 s); executed once",
            stream="the same, with a pause within the stream",
        ),
        FaultKind(
            "cut",
            By.ENGINE,
            "disconnects it from the network; its processes keep running",
            BROKEN_OR_TIMEOUT,
            soak_on_all=True,
            get="the client waits until the network is back, then gets 200; executed once."
            " If the connection is reset: as kill",
        ),
        FaultKind(
            "slow",
            By.BACKEND,
            "multiplies every duration by the value",
            TIMEOUT_ONLY,
            Value("factor", 4.0, 1, 1000, soak=4.0),
            get="the client gets 200, but later; executed once",
        ),
        FaultKind(
            "error_rate",
            By.BACKEND,
            "answers this share of the requests with a 500",
            frozenset({Failure.ERROR}),
            Value("share", 1.0, 0, 1, soak=0.5),
            get="the client gets 500, which nginx does not count as a failure; not executed",
        ),
        FaultKind(
            "drop",
            By.BACKEND,
            "closes the connection in the middle of the response, after this many tokens of a"
            " stream; 0: before the first byte",
            frozenset({Failure.BROKEN}),
            Value("tokens", 1.0, 0, 1_000_000, soak=1.0),
            get="the response is cut off, no retry; executed once."
            " With 0: the client gets 200 from the next server; executed twice",
            post="the response is cut off, no retry; executed once."
            " With 0: the client gets 502, no retry; executed once",
            stream="the stream is cut off after this many tokens. With 0: the client gets 502",
        ),
        FaultKind(
            "hang",
            By.BACKEND,
            "holds every request until the fault is healed",
            TIMEOUT_ONLY,
            freezes=True,
            get="the client waits, then gets 200 (`proxy_read_timeout` is 600 s); executed once",
        ),
        FaultKind(
            "malformed_json",
            By.BACKEND,
            "removes the last character of JSON responses",
            frozenset({Failure.MALFORMED}),
            get="the client gets 200 and correct text; executed once",
            post="the client gets 200 and malformed JSON; executed once",
            stream="the client gets 200 and malformed events; executed once",
        ),
        FaultKind(
            "refuse_health", By.BACKEND, "answers `/health` with 503; nginx never requests it"
        ),
        FaultKind("reload", By.NGINX, "makes nginx read its configuration again"),
    )
}


def names(*by: By) -> tuple[str, ...]:
    """The kinds of fault that one of these implements."""
    return tuple(kind.name for kind in KINDS.values() if kind.by in by)


def failures(kind: str) -> frozenset[Failure]:
    """How a request can fail because of a fault; empty for an unknown kind."""
    return KINDS[kind].failures if kind in KINDS else frozenset()


def help_text() -> str:
    """The kinds as the help of `lab fault` lists them."""
    parts = (
        ("Any service:", By.ENGINE),
        ("Backends only:", By.BACKEND),
        ("nginx only:", By.NGINX),
    )
    # \b keeps the lines of a paragraph as they are
    return "\n\n".join(
        "\n".join(["\b", title, *(line for name in names(by) for line in _listed(KINDS[name]))])
        for title, by in parts
    )


def _listed(kind: FaultKind) -> list[str]:
    """A kind as lines of help: its name and what it does, with the default of its value."""
    what = kind.what.replace("`", "").replace("**", "")
    value = f" (default {kind.value.meaning}: {kind.value.usual:g})" if kind.value else ""
    return wrap(
        f"{kind.name:<14}  {what}{value}", 76, initial_indent="  ", subsequent_indent=" " * 18
    )
