"""Read a scenario: the load, the fleet and the timeline of faults."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

import yaml

from .. import fault_kinds
from ..backends.llm.profiles import MOST, PROFILES, Limits
from ..errors import UsageError
from ..evidence.timeline import Event as Event  # a scenario plans what a timeline records
from ..fault_kinds import By
from ..nginxconf import methods
from .trace_file import Trace, read

FAULTS = fault_kinds.names(By.ENGINE, By.BACKEND)
_OF_NGINX = fault_kinds.names(By.ENGINE)
NO_LIMITS = Limits()
_MOST_BACKENDS = 32
_MOST_SERVERS = 1000  # of a fleet that is only simulated
_MOST_REQUESTS = 10_000_000
_MOST_TOKENS = 131_072
_MOST_SECONDS = 86_400
_MOST_SEED = 2**63 - 1
_ARRIVALS = {
    "poisson": ("rate",),
    "constant": ("rate",),
    "bursts": ("rate", "burst"),
    "closed": ("users",),
}
_DISTS = {
    "fixed": ("tokens",),
    "uniform": ("min", "max"),
    "lognormal": ("median", "sigma", "max"),
}
_VERBS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fault": (("backend", "kind"), ("value",)),
    "heal": ((), ("backend",)),
    "scale": (("backends",), ()),
    "use": (("method",), ("weights", "key")),
    "reload": ((), ()),
}


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


def requested(
    name: str, duration: float = 0.0, trace: str = "", speed: float = 1.0, limit: int | None = None
) -> Scenario:
    """The scenario named on the command line, with its duration replaced if one is given.

    With a trace the name may be empty; the trace is then sent to the default fleet. UsageError if
    neither is given, for a `speed` or a `limit` without a trace, and for a duration with one.
    """
    if not trace:
        if not name:
            raise UsageError(
                "no scenario and no trace", "lab scenarios lists them; or --trace FILE"
            )
        if speed != 1.0 or limit is not None:
            raise UsageError("--speed and --limit need a trace", "--trace FILE")
        return lasting(load(name), duration)
    if duration:
        raise UsageError("--duration needs a scenario without a trace", "with --trace: --limit N")
    recorded = read(trace, speed=speed, limit=limit)
    return traced(recorded, load(name) if name else None)


def lasting(scenario: Scenario, duration: float) -> Scenario:
    """The scenario with the --duration of the command line; with its own if that is 0."""
    if not 0 <= duration <= _MOST_SECONDS:
        raise UsageError(
            f"--duration {duration:g} is out of range",
            f"seconds from 0, which is the scenario's own duration, to {_MOST_SECONDS:,}",
        )
    return replace(scenario, duration=duration) if duration else scenario


def seed_of(number: int) -> int:
    """A seed from the command line; UsageError for one that no scenario may have."""
    if not 0 <= number <= _MOST_SEED:
        raise UsageError(f"--seed {number} is out of range", f"a number from 0 to {_MOST_SEED:,}")
    return number


def traced(trace: Trace, base: Scenario | None = None) -> Scenario:
    """A scenario that sends a trace; fleet, targets and timeline are those of `base`."""
    return replace(base or Scenario(trace.name), name=trace.name, trace=trace, duration=None)


def described(scenario: Scenario) -> dict[str, Any]:
    """A scenario as plain values; for a trace its name and size, without its requests."""
    values = asdict(replace(scenario, trace=None))
    if scenario.trace is not None:
        values["trace"] = scenario.trace.described()
    return values


def names() -> tuple[str, ...]:
    """The built-in scenarios' names, sorted."""
    folder = resources.files(__package__) / "scenarios"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if _is_yaml(f.name)))


def load(name_or_path: str) -> Scenario:
    """A built-in scenario by its name, or the user's own by its path.

    Raises UsageError for a name that is neither, and for a file that cannot be read or is wrong.
    """
    if name_or_path in names():
        file = f"{name_or_path}.yaml"
        return parse((resources.files(__package__) / "scenarios" / file).read_bytes(), file)
    if not (_is_yaml(name_or_path) or "/" in name_or_path or Path(name_or_path).is_file()):
        raise UsageError(
            f'no scenario is called "{name_or_path}"',
            f"{_guess(name_or_path, names())} (built in: {', '.join(names())}; or a path)",
        )
    try:
        return parse(Path(name_or_path).read_bytes(), name_or_path)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f'cannot read scenario "{name_or_path}": {reason}',
            "lab scenarios lists the built-in ones",
        ) from error


def parse(text: bytes | str, file: str) -> Scenario:
    """The scenario that `text` describes; `file` is its name in errors.

    Raises UsageError with file:line:column, the error and the allowed values.
    """
    root = _compose(text, file, tuple(_SCENARIO))
    fields = _fields(root, "a scenario", tuple(_SCENARIO))
    values = {key: _SCENARIO[key](node, key) for key, node in fields.items()}
    values.setdefault("name", re.sub(r"[^\w.-]", "_", Path(file).stem) or "scenario")
    scenario = Scenario(**values)
    _check_length(scenario, root)
    _check_variant(fields, scenario.arrivals, "arrivals", _ARRIVALS, root)
    _check_fleet(scenario, fields)
    _check_timeline(scenario, fields)
    return scenario


def parse_fleet(text: bytes | str, file: str) -> tuple[Scenario, tuple[int, ...], tuple[int, ...]]:
    """A fleet and its load, as `lab advise` takes them: scenario, version of nginx, weights.

    The keys are a scenario's, without name, fleet, backends, profile, timeline; with `servers`, a
    list of profiles or {profile: …, slow: factor, count: n, weight: w}, with `nginx: 1.28.0`, and
    with `nat: true` where all clients share one address. Raises UsageError as `parse` does.
    """
    others = {key: reader for key, reader in _SCENARIO.items() if key not in _NOT_OF_A_FLEET}
    allowed = (*_OF_A_FLEET, *others)
    root = _compose(text, file, allowed)
    fields = _fields(root, "a fleet", allowed)
    _check_needed(fields, ("servers",), "a fleet", root)
    servers = [server for group in _servers(fields["servers"], "servers") for server in group]
    if not 1 <= len(servers) <= _MOST_SERVERS:
        rule = f"servers must be from 1 to {_MOST_SERVERS:,} in all"
        _fail(fields["servers"], f"{rule}, not {len(servers):,},", "servers: [h100-8b, h100-8b]")
    values = {key: others[key](node, key) for key, node in fields.items() if key in others}
    if "duration" not in values:
        values.setdefault("requests", max(_ENOUGH, _ENOUGH_PER_SERVER * len(servers)))
    if "nat" in fields and _flag(fields["nat"], "nat"):
        if "clients" in fields:
            _fail(fields["clients"], "with nat all clients have one address", "leave out clients")
        values["clients"] = 1
    name = re.sub(r"[^\w.-]", "_", Path(file).stem) or "fleet"
    fleet = {f"backend-{place}": machine for place, (machine, _) in enumerate(servers, 1)}
    weights = tuple(weight for _, weight in servers)
    scenario = Scenario(**values, name=name, backends=len(servers), fleet=fleet)
    _check_variant(fields, scenario.arrivals, "arrivals", _ARRIVALS, root)
    _check_amount(scenario, fields)
    version = _nginx(fields["nginx"], "nginx") if "nginx" in fields else _NEWEST
    return scenario, version, weights


def machines(scenario: Scenario) -> dict[str, Machine]:
    """Every backend that the scenario has at any time, by name, in order."""
    usual = Machine(scenario.profile)
    return {name: scenario.fleet.get(name, usual) for name in _backends(scenario)}


# Reading: a reader turns a YAML node into a value, or says where and why it cannot.

_T = TypeVar("_T")
_Reader: TypeAlias = Callable[[yaml.Node, str], _T]


def _compose(text: bytes | str, file: str, keys: Sequence[str]) -> yaml.Node:
    """The YAML of a file whose keys may be `keys`."""
    try:
        loader = yaml.SafeLoader(text if isinstance(text, str) else text.decode("utf-8-sig"))
        loader.name = file
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UsageError(
            f"{error.problem or 'not YAML'} in {_place(file, mark)}", "correct the YAML there"
        ) from error
    except RecursionError as error:
        raise UsageError(f"{file} is nested too deeply", "at most a few levels") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8
        raise UsageError(
            f"{file} is not text: {' '.join(str(error).split())}", "save it as UTF-8"
        ) from error
    if root is None:
        raise UsageError(f"{file} is empty", f"keys: {', '.join(keys)}")
    return root


def _place(file: str, mark: yaml.Mark | None) -> str:
    return f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file


def _fail(node: yaml.Node, message: str, hint: str = "") -> NoReturn:
    raise UsageError(f"{message} in {_place(node.start_mark.name, node.start_mark)}", hint)


def _wrong(node: yaml.Node, key: str, wanted: str) -> NoReturn:
    _fail(node, f"{key} must be {wanted}, not {_shown(node)},", f"change {key} in that line")


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return f'"{node.value[:40]}"' if node.value else "empty"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _guess(word: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, allowed, 1, 0.5)
    return f'did you mean "{close[0]}"?' if close else "see what is allowed"


def _fields(node: yaml.Node, what: str, allowed: tuple[str, ...]) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        _wrong(node, what, f"a mapping with the keys {', '.join(allowed)}")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else _shown(key)
        if name not in allowed:
            hint = f"{_guess(name, allowed)} (allowed here: {', '.join(allowed)})"
            _fail(key, f'unknown key "{name}" of {what}', hint)
        if name in fields:
            _fail(key, f'key "{name}" is given twice', "leave out one of the two")
        fields[name] = value
    return fields


def _plain(node: yaml.Node) -> str:
    """The text of an unquoted scalar, else "", which no reader accepts."""
    return node.value if isinstance(node, yaml.ScalarNode) and node.style is None else ""


def _range(low: float, high: float) -> str:
    return f"from {low:,.12g} to {high:,.12g}"


def _number(low: float, high: float) -> _Reader[float]:
    def read(node: yaml.Node, key: str) -> float:
        try:
            value = float(_plain(node))
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            _wrong(node, key, f"a number {_range(low, high)}")
        return value

    return read


def _integer(low: int, high: int) -> _Reader[int]:
    def read(node: yaml.Node, key: str) -> int:
        try:
            value = int(_plain(node))
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            _wrong(node, key, f"a whole number {_range(low, high)}")
        return value

    return read


def _text(pattern: str = r"(?s).*", wanted: str = "text") -> _Reader[str]:
    def read(node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(pattern, node.value):
            _wrong(node, key, wanted)
        return str(node.value)

    return read


def _choice(*options: str) -> _Reader[str]:
    def read(node: yaml.Node, key: str) -> str:
        if isinstance(node, yaml.ScalarNode) and node.value in options:
            return str(node.value)
        hint = _guess(node.value, options) if isinstance(node, yaml.ScalarNode) else ""
        _fail(node, f"{key} must be one of {', '.join(options)}, not {_shown(node)},", hint)

    return read


def _flag(node: yaml.Node, key: str) -> bool:
    flags = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    word = _plain(node).lower()
    if word not in flags:
        _wrong(node, key, "true or false")
    return flags[word]


def _list(item: _Reader[_T]) -> _Reader[tuple[_T, ...]]:
    def read(node: yaml.Node, key: str) -> tuple[_T, ...]:
        if not isinstance(node, yaml.SequenceNode):
            _wrong(node, key, "a list")
        return tuple(item(entry, f"{key}[{n}]") for n, entry in enumerate(node.value))

    return read


def _record(
    make: Callable[..., _T], needed: tuple[str, ...] = (), **readers: _Reader[Any]
) -> _Reader[_T]:
    """Read a mapping whose keys are the readers' names into `make`'s arguments."""

    def read(node: yaml.Node, key: str) -> _T:
        fields = _fields(node, key, tuple(readers))
        _check_needed(fields, needed, key, node)
        return make(
            **{name: readers[name](value, f"{key}.{name}") for name, value in fields.items()}
        )

    return read


def _check_needed(
    fields: Mapping[str, yaml.Node], needed: Sequence[str], what: str, node: yaml.Node
) -> None:
    for key in needed:
        if key not in fields:
            _fail(node, f'{what} needs "{key}", which is missing', f"add {key}")


def _check_variant(
    fields: Mapping[str, yaml.Node],
    chosen: str,
    what: str,
    variants: Mapping[str, tuple[str, ...]],
    node: yaml.Node,
) -> None:
    """Check that all keys of the chosen variant are present, and none of other variants."""
    _check_needed(fields, variants[chosen], f"{what} {chosen}", node)
    for key in {key for keys in variants.values() for key in keys} - {*variants[chosen]}:
        if key in fields:
            needs = ", ".join(variants[chosen])
            _fail(fields[key], f'"{key}" is not allowed with {what} {chosen}', f"keys: {needs}")


def _lengths(low: int, node: yaml.Node, key: str) -> Lengths:
    tokens = _integer(low, _MOST_TOKENS)
    if isinstance(node, yaml.ScalarNode):
        return Lengths(tokens=tokens(node, key))
    lengths = _record(
        Lengths,
        dist=_choice(*_DISTS),
        tokens=tokens,
        min=tokens,
        max=tokens,
        median=_number(1, _MOST_TOKENS),
        sigma=_number(0, 10),
    )(node, key)
    _check_variant(_fields(node, key, Lengths.__match_args__), lengths.dist, key, _DISTS, node)
    if lengths.dist != "fixed" and max(lengths.min, lengths.median) > lengths.max:
        smaller = "min" if lengths.dist == "uniform" else "median"
        _fail(node, f"{key}.{smaller} is larger than {key}.max", f"raise {key}.max")
    return lengths


def _machine(node: yaml.Node, key: str) -> Machine:
    if isinstance(node, yaml.ScalarNode):
        return Machine(_choice(*PROFILES)(node, key))
    return _record(_machine_of, ("profile",), **_machine_readers())(node, key)


def _machine_readers() -> dict[str, _Reader[Any]]:
    limits = dict.fromkeys(Limits.__dataclass_fields__, _integer(1, MOST))
    return {"profile": _choice(*PROFILES), "slow": _number(1, 1000), **limits}


def _machine_of(profile: str, slow: float = 1.0, **limits: int) -> Machine:
    return Machine(profile, slow, Limits(**limits))


def _fleet(node: yaml.Node, key: str) -> dict[str, Machine]:
    allowed = tuple(f"backend-{n}" for n in range(1, _MOST_BACKENDS + 1))
    if not isinstance(node, yaml.MappingNode):
        _wrong(node, key, "a mapping such as {backend-1: l40s-8b}")
    fields = _fields(node, key, allowed)
    return {name: _machine(value, f"{key}.{name}") for name, value in fields.items()}


def _event(node: yaml.Node, key: str) -> Event:
    """Read one event; _VERBS has the required and optional keys of each verb."""
    event = _record(Event, ("at", "do"), **_EVENT)(node, key)
    fields = _fields(node, key, tuple(_EVENT))
    needed, optional = _VERBS[event.do]
    _check_needed(fields, needed, f"{key}: {event.do}", node)
    for name in fields.keys() - {"at", "do", *needed, *optional}:
        keys = ", ".join(("at", "do", *needed, *optional))
        _fail(fields[name], f'{key}: "{name}" is not allowed with {event.do}', f"keys: {keys}")
    if event.do == "fault":
        _check_fault(event, fields, key, node)
    return event


def _check_fault(event: Event, fields: Mapping[str, yaml.Node], key: str, node: yaml.Node) -> None:
    allowed = fault_kinds.KINDS[event.kind].value
    if event.backend == "nginx" and event.kind not in _OF_NGINX:
        kinds = ", ".join(_OF_NGINX)
        _fail(fields["kind"], f'{key}: nginx has no fault "{event.kind}"', f"kinds: {kinds}")
    if allowed is None and event.value is not None:
        _fail(fields["value"], f'{key}: fault "{event.kind}" takes no value', "remove value")
    if allowed is not None and event.value is None:
        needed = f"a value {_range(allowed.least, allowed.most)}"
        _fail(node, f'{key}: fault "{event.kind}" needs {needed}', f"value: {allowed.usual:g}")
    if allowed is not None:
        _number(allowed.least, allowed.most)(fields["value"], f"{key}.value")


def _timeline(node: yaml.Node, key: str) -> tuple[Event, ...]:
    return tuple(sorted(_list(_event)(node, key), key=lambda event: event.at))


def _check_length(scenario: Scenario, root: yaml.Node) -> None:
    if scenario.duration is None and scenario.requests is None:
        _fail(root, "neither duration nor requests is given", "duration: 60")


def _check_amount(scenario: Scenario, fields: Mapping[str, yaml.Node]) -> None:
    """Refuse a duration in which more requests would be sent than `requests` allows."""
    if scenario.duration is None or scenario.requests is not None:
        return
    per_second = scenario.rate * scenario.sessions.turns
    if scenario.arrivals == "closed":
        per_second = scenario.users / max(scenario.sessions.think, 0.1)
    if scenario.duration * per_second > _MOST_REQUESTS:
        most = f"duration may make at most {_MOST_REQUESTS:,} requests"
        _fail(fields["duration"], most, "a shorter duration, or requests: 100000")


def _backends(scenario: Scenario) -> list[str]:
    most = max([scenario.backends, *(event.backends or 0 for event in scenario.timeline)])
    return [f"backend-{n}" for n in range(1, most + 1)]


def _check_fleet(scenario: Scenario, fields: Mapping[str, yaml.Node]) -> None:
    known = _backends(scenario)
    for name in scenario.fleet:
        if name not in known:
            most = f"backend-1 to {known[-1]}"
            _fail(
                fields["fleet"], f'fleet names "{name}", but there are only {most},', "set backends"
            )


def _check_timeline(scenario: Scenario, fields: Mapping[str, yaml.Node]) -> None:
    present = scenario.backends
    for event in scenario.timeline:
        what = f"the {event.do} at {event.at:g} s"
        present = event.backends or present
        names = tuple(f"backend-{number}" for number in range(1, present + 1))
        if event.backend not in (*names, "all", "nginx"):
            _fail(
                fields["timeline"],
                f'{what} names "{event.backend}", but the last backend is {names[-1]},',
                "set backends",
            )
        if scenario.duration is not None and event.at > scenario.duration:
            _fail(
                fields["timeline"],
                f"{what} is after the end at {scenario.duration:g} s,",
                "a longer duration",
            )
        if event.do == "use":
            choice = methods.Choice(event.method, names, event.weights, key=event.key)
            _check_choice(choice, what, fields["timeline"])


def _check_choice(choice: methods.Choice, what: str, node: yaml.Node) -> None:
    """Check that the method takes the event's key, and the backends its weights."""
    try:
        methods.render(choice)
    except UsageError as error:
        _fail(node, f"{what}: {error.message}", error.hint)


def _is_yaml(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


_EVENT: Mapping[str, _Reader[Any]] = {
    "at": _number(0, _MOST_SECONDS),
    "do": _choice(*_VERBS),
    "backend": _text(r"backend-[1-9]\d?|all|nginx", "backend-N, all or nginx"),
    "kind": _choice(*FAULTS),
    "value": _number(0, 1_000_000),
    "backends": _integer(1, _MOST_BACKENDS),
    "method": _choice(*methods.METHODS),
    "weights": _list(_integer(1, 1_000_000)),
    "key": _text(r"(?:[^\s$]|\$\w+|\$\{\w+\})+", "a key such as $request_uri"),
}
_SCENARIO: Mapping[str, _Reader[Any]] = {
    "name": _text(r"[\w.-]{1,64}", "letters, digits, _, . and -"),
    "about": _text(),
    "seed": _integer(0, _MOST_SEED),
    "duration": _number(0.001, _MOST_SECONDS),
    "requests": _integer(1, _MOST_REQUESTS),
    "arrivals": _choice(*_ARRIVALS),
    "rate": _number(0.001, 100_000),
    "burst": _integer(1, 100_000),
    "users": _integer(1, 100_000),
    "prompt": partial(_lengths, 1),
    "output": partial(_lengths, 1),
    "tenants": _record(
        Tenants,
        n=_integer(1, 100_000),
        system_tokens=_integer(0, _MOST_TOKENS),
        skew=_number(0, 10),
    ),
    "sessions": _record(Sessions, turns=_integer(1, 1000), think=_number(0, 3600)),
    "clients": _integer(1, 65_536),
    "stream": _flag,
    "api": _choice("chat", "completions"),
    "model": _text(r"\S+", "a model's name"),
    "backends": _integer(1, _MOST_BACKENDS),
    "profile": _choice(*PROFILES),
    "fleet": _fleet,
    "time_scale": _number(0.001, 10_000),
    "targets": _record(
        Targets,
        ttft_ms=_number(0.001, 1e9),
        itl_ms=_number(0.001, 1e9),
        e2e_ms=_number(0.001, 1e9),
    ),
    "timeline": _timeline,
}

_ENOUGH = 1500  # requests, where a fleet file says neither duration nor requests
_ENOUGH_PER_SERVER = 20
_OF_A_FLEET = ("servers", "nginx", "nat")
_NOT_OF_A_FLEET = ("name", "backends", "profile", "fleet", "timeline")
_NEWEST = (1, 31, 0)
_WITH_ZONE = (1, 9, 0)  # the oldest nginx that takes the config


def _nginx(node: yaml.Node, key: str) -> tuple[int, ...]:
    """A version of nginx that has `zone`."""
    wanted = "a version such as 1.28.0"
    text = _text(r"\d{1,4}\.\d{1,4}\.\d{1,4}", wanted)(node, key)
    version = tuple(map(int, text.split(".")))
    if version < _WITH_ZONE:
        _wrong(node, key, "1.9.0 or newer, which has zone")
    return version


def _server(node: yaml.Node, key: str) -> list[tuple[Machine, int]]:
    """One entry of a fleet's servers: `count` equal machines and their weight."""
    if isinstance(node, yaml.ScalarNode):
        return [(_machine(node, key), 1)]
    count, weight = _integer(1, _MOST_SERVERS), _integer(1, 1_000_000)

    def machines_of(count: int = 1, weight: int = 1, **machine: Any) -> list[tuple[Machine, int]]:
        return [(_machine_of(**machine), weight)] * count

    readers = {**_machine_readers(), "count": count, "weight": weight}
    del readers["queue_limit"]  # is not simulated
    return _record(machines_of, ("profile",), **readers)(node, key)


_servers = _list(_server)
