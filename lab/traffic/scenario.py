"""A scenario as values: the load, the fleet and the timeline of faults."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..backends.llm.profiles import Limits
from ..evidence.timeline import Event
from .trace_file import Trace

NO_LIMITS = Limits()
MOST_BACKENDS = 32
MOST_SECONDS = 86_400
MOST_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many tokens a text has.

    `dist` fixed: always `tokens`. uniform: any whole number from `min` to `max`. lognormal:
    median · exp(sigma · normal), so half are above the median and a few far above; capped at `max`.
    """

    dist: str = "fixed"
    tokens: int = 0
    min: int = 1
    max: int = 0
    median: float = 0.0
    sigma: float = 0.0


@dataclass(frozen=True, slots=True)
class Tenants:
    """`n` tenants, each with a different system prompt of `system_tokens` tokens.

    Tenant k is chosen with a probability proportional to 1/k^skew: 0 is uniform, 1 is Zipf.
    """

    n: int = 1
    system_tokens: int = 0
    skew: float = 0.0


@dataclass(frozen=True, slots=True)
class Sessions:
    """A conversation of `turns` requests; each contains the conversation so far.

    A turn is due `think` seconds after the previous answer (the mean of an exponential).
    """

    turns: int = 1
    think: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """One backend: its timing model, how many times slower than that it runs, its limits."""

    profile: str
    slow: float = 1.0
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Targets:
    """The limits that a good answer meets, in ms; None: no target.

    `ttft_ms` is the time to the first token, `itl_ms` the mean time between an answer's tokens,
    `e2e_ms` the time of the whole answer.
    """

    ttft_ms: float | None = None
    itl_ms: float | None = None
    e2e_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load, a fleet and a timeline. All seconds are seconds on the clock of the run.

    name        as it appears in run folders: letters, digits, "_", "." and "-"
    about       one line for people
    seed        the same seed makes the same requests
    duration    seconds in which requests are sent    } one of the two, or both:
    requests    how many requests are sent            } then whichever ends first
    arrivals    poisson: at random moments, `rate` a second on average
                constant: one every 1/rate seconds
                bursts: `burst` at once every burst/rate seconds
                closed: `users` who each wait for an answer, think, and ask again
    rate        conversations begun per second (with one turn each: requests per second)
    prompt      tokens of what the user writes in one turn: a number, or Lengths
    output      tokens of an answer: a number, or Lengths
    tenants     customers with a shared system prompt
    sessions    turns of a conversation, and the time to think between them
    clients     how many client addresses there are; 1 means that all are behind one NAT
    stream      whether answers come token by token
    api         chat or completions
    model       the model's name as requests give it
    backends    how many backends there are at the start
    profile     the timing model of every backend that `fleet` does not name
    fleet       backend-N: a profile, or {profile: …, slow: factor, and any of max_num_seqs: …,
                max_num_batched_tokens: …, kv_blocks: …, queue_limit: …}
    time_scale  how many times faster than real time the backends run; nothing else is scaled
    targets     the limits that a good answer meets
    timeline    the events during the run
    trace       a recorded trace that is sent instead: it replaces duration, requests, arrivals,
                prompt, output, tenants, sessions and clients. Set by --trace, not in the file
    """

    name: str
    about: str = ""
    seed: int = 1
    duration: float | None = None
    requests: int | None = None
    arrivals: str = "poisson"
    rate: float = 0.0
    burst: int = 1
    users: int = 0
    prompt: Lengths = Lengths(tokens=256)
    output: Lengths = Lengths(tokens=128)
    tenants: Tenants = Tenants()
    sessions: Sessions = Sessions()
    clients: int = 100
    stream: bool = True
    api: str = "chat"
    model: str = "lab-llm"
    backends: int = 3
    profile: str = "h100-8b"
    fleet: Mapping[str, Machine] = field(default_factory=dict)
    time_scale: float = 1.0
    targets: Targets = Targets()
    timeline: tuple[Event, ...] = ()
    trace: Trace | None = None


def traced(trace: Trace, base: Scenario | None = None) -> Scenario:
    """A scenario that sends a trace; fleet, targets and timeline are those of `base`."""
    return replace(base or Scenario(trace.name), name=trace.name, trace=trace, duration=None)


def described(scenario: Scenario) -> dict[str, Any]:
    """A scenario as plain values; for a trace its name and size, without its requests."""
    values = asdict(replace(scenario, trace=None))
    if scenario.trace is not None:
        values["trace"] = scenario.trace.described()
    return values


def machines(scenario: Scenario) -> dict[str, Machine]:
    """Every backend that the scenario has at any time, by name, in order."""
    usual = Machine(scenario.profile)
    return {name: scenario.fleet.get(name, usual) for name in backend_names(scenario)}


def backend_names(scenario: Scenario) -> list[str]:
    """The names of every backend that the scenario has at any time, in order."""
    most = max([scenario.backends, *(event.backends or 0 for event in scenario.timeline)])
    return [f"backend-{n}" for n in range(1, most + 1)]
