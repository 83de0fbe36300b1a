"""The running lab: bring it up, switch its method, report its status."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..backends.llm.profiles import PROFILES, Limits
from ..errors import LabError, UsageError
from ..evidence import typed
from ..nginxconf import methods
from ..nginxconf.prompt import NJS
from ..setup import steps as images
from ..stack import behaviour, compose, nginx
from ..stack.compose import Lab
from ..stack.shell import in_parallel, write_whole

NO_LIMITS = Limits()

_RUNNING = ("healthy", "unhealthy", "starting", "running")  # states in which commands can be run


def up(
    lab: Lab,
    backends: int = 3,
    profile: str | None = None,
    time_scale: float | None = None,
    limits: Limits = NO_LIMITS,
) -> None:
    """Bring the lab up, or change the number of its backends without losing a request.

    A running lab keeps its profile, time scale and limits where none are given here; a profile
    that is given replaces the limits too.
    """
    names = tuple(f"backend-{number}" for number in range(1, backends + 1))
    settings = _settings(lab, profile, time_scale, limits)
    if not compose.containers(lab):
        first = methods.Choice(methods.DEFAULT.name, names)
        write_whole(lab.active / "upstream.conf", methods.render(first))
        _save_choice(lab, first, 0)
        compose.up(lab, backends, settings)
        return
    choice = with_backends(saved(lab), names)
    if not (lab.active / "upstream.conf").exists():  # the state folder was lost
        write_whole(lab.active / "upstream.conf", methods.render(choice))
    if len(compose.backend_containers(lab)) > backends:
        use(lab, choice)
        compose.remove_surplus(lab, backends)
    compose.up(lab, backends, settings)
    if profile is not None or time_scale is not None or limits.given:
        reset(lab, settings)
    use(lab, choice)  # recreated containers have new addresses


def up_metrics(lab: Lab) -> None:
    """Start a Prometheus that scrapes the backends; build its image if it is missing."""
    images.build_prometheus()
    compose.up_prometheus(lab)


def reset(lab: Lab, settings: Mapping[str, str]) -> None:
    """Give every backend these settings and end its faults."""
    timing = {"profile": settings["LAB_PROFILE"], "time_scale": float(settings["LAB_TIME_SCALE"])}
    limits = {name.lower(): int(settings[f"LAB_{name}"] or 0) for name in compose.LIMITS}

    def reset_one(backend: str) -> None:
        behaviour.request(lab, backend, "DELETE", "/behaviour")
        behaviour.request(lab, backend, "PUT", "/profile", {**timing, **limits})

    in_parallel(
        reset_one, [compose.service(container) for container in compose.backend_containers(lab)]
    )


@dataclass(frozen=True, slots=True)
class Condition:
    """The state and the settings of a backend; `wrong` lists its faults except slowness.

    `state` is the container's. `limits` are those that differ from its profile's. If the backend
    does not answer, everything but `state` is unknown: "" or 0.
    """

    state: str
    profile: str = ""
    time_scale: float = 0.0
    slow: float = 1.0
    wrong: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether it is healthy and has no faults except slowness."""
        return self.state == "healthy" and not self.wrong

    @property
    def faults(self) -> str:
        """Its faults as text: `slow 4, error_rate 0.5`."""
        slow = (f"slow {self.slow:g}",) if self.slow != 1 else ()
        return ", ".join((*slow, *self.wrong))

    @property
    def timing(self) -> str:
        """Its profile and the limits that differ from it: `h100-8b, max_num_seqs 4`."""
        limits = (f"{name} {limit}" for name, limit in self.limits.items())
        return ", ".join((self.profile, *limits))

    def __str__(self) -> str:
        timing = f"{self.timing}, time scale {self.time_scale:g}" if self.profile else ""
        state = "" if self.state == "healthy" else self.state
        return ", ".join(filter(None, (state, timing, self.faults)))


def conditions(lab: Lab) -> dict[str, Condition]:
    """The condition of each backend, from its behaviour port."""
    states = {
        compose.service(container): compose.health(container)
        for container in compose.backend_containers(lab)
    }
    answers = in_parallel(lambda name: _condition(lab, name, states[name]), list(states))
    return dict(zip(states, answers, strict=True))


def _condition(lab: Lab, name: str, state: str) -> Condition:
    if state not in _RUNNING:
        return Condition(state)
    try:
        current = behaviour.request(lab, name, "GET", "/behaviour")
        profile = behaviour.request(lab, name, "GET", "/profile")
    except LabError:
        return Condition(state, wrong=("its behaviour port does not answer",))
    wrong = tuple(
        kind if current[field] is True else f"{kind} {current[field]:g}"
        for kind, field in _SHOWN.items()
        if current[field]
    )
    return Condition(
        state,
        str(profile["name"]),
        float(profile["time_scale"]),
        float(current["slow"]),
        wrong,
        profile.get("limits", {}),  # an image from before limits could be set
    )


# what `lab status` shows of a behaviour, by the name of the fault
_SHOWN: Mapping[str, str] = {
    "error_rate": "error_rate",
    "hang": "hang",
    "drop": "drop_rate",
    "malformed_json": "malformed_json",
    "refuse_health": "refuse_health",
}


def _settings(
    lab: Lab, profile: str | None, time_scale: float | None, limits: Limits
) -> dict[str, str]:
    """The variables of compose.yaml: as given, else as in the running lab, else the defaults."""
    if profile is not None and profile not in PROFILES:
        raise UsageError(f'no profile "{profile}"', f"one of {', '.join(PROFILES)}")
    if time_scale is not None and not 0.001 <= time_scale <= 10_000:
        raise UsageError(
            f"--time-scale {time_scale:g} is out of range", "a number from 0.001 to 10000"
        )
    running = compose.settings(lab)
    scale = running["TIME_SCALE"] if time_scale is None else f"{time_scale:g}"
    kept_limits = {} if profile else {name: running[name] for name in compose.LIMITS}
    given_limits = {name.upper(): str(limit) for name, limit in limits.given.items()}
    return {
        "LAB_PROFILE": profile or running["PROFILE"],
        "LAB_TIME_SCALE": scale,
        **{f"LAB_{name}": (kept_limits | given_limits).get(name, "") for name in compose.LIMITS},
    }


def with_backends(choice: methods.Choice, names: tuple[str, ...]) -> methods.Choice:
    """The same choice for other backends: new ones get weight 1, removed ones are left out."""
    old = choice.weights or (1,) * len(choice.backends)
    weights = dict(zip(choice.backends, old, strict=True))
    fitted = tuple(weights.get(name, 1) for name in names)
    parameters = {name: text for name, text in choice.parameters.items() if name in ("", *names)}
    return replace(choice, backends=names, weights=fitted, parameters=parameters)


def _save_choice(lab: Lab, choice: methods.Choice, mark: int) -> None:
    """Save a choice for later commands, with `mark`, the length of nginx's log at its start."""
    write_whole(lab.active / "choice.json", json.dumps(asdict(choice), indent=1) + "\n")
    write_whole(lab.active / "log_mark", f"{mark}\n")
    write_whole(lab.active / "targets.json", json.dumps(targets(choice.backends), indent=1) + "\n")


def targets(backends: Sequence[str]) -> list[dict[str, Any]]:
    """The backends as targets for a Prometheus, which scrapes them through nginx's lab door."""
    return [
        {
            "targets": ["nginx:8081"],
            "labels": {"__metrics_path__": f"/metrics/{name}", "backend": name},
        }
        for name in backends
    ]


def saved(lab: Lab) -> methods.Choice:
    """The current choice, as saved; round robin if none can be read."""
    try:
        choice = typed.read(methods.Choice, (lab.active / "choice.json").read_bytes())
        methods.render(choice)
    except (OSError, ValueError, UsageError):
        return methods.Choice(methods.DEFAULT.name, ())
    return choice


def log_mark(lab: Lab) -> int:
    """The length of nginx's log, in bytes, when the current method began; 0 if unknown."""
    try:
        return int((lab.active / "log_mark").read_text())
    except (OSError, ValueError):
        return 0


def status(lab: Lab) -> dict[str, Any]:
    """The lab's containers, addresses and method, as values for JSON.

    `differs` lists where nginx does not run what the lab wrote. A backend whose container was
    removed by something else has the state "missing". `nginx` is its version, None if it is down.
    """
    containers = compose.containers(lab)
    backends = conditions(lab) if containers else {}
    states = {compose.service(container): compose.health(container) for container in containers}
    runs = states.get("nginx") in _RUNNING
    rows = [
        {
            "service": compose.service(container),
            "state": states[compose.service(container)],
            "address": compose.address(container),
            **_backend_status(backends.get(compose.service(container))),
        }
        for container in containers
    ]
    removed = missing(lab) if containers else ()
    rows += [{"service": name, "state": "missing", "address": ""} for name in removed]
    return {
        "project": lab.project,
        "front": lab.front,
        "door": lab.door,
        "method": saved(lab).method if containers else None,
        "nginx": dotted(nginx.version(lab)) if runs else None,
        "differs": differences(lab) if runs else [],
        "containers": sorted(rows, key=lambda row: compose.natural(row["service"])),
    }


def differences(lab: Lab) -> list[str]:
    """A sentence for each file that nginx loaded in another version than the lab wrote."""
    choice, loaded = saved(lab), nginx.loaded(lab)
    written = hashlib.sha256(methods.render(choice).encode()).hexdigest()
    upstream = "active/upstream.conf"
    sentences = [
        f"{file} changed after nginx loaded it: nginx runs the earlier version"
        for file in loaded.changed
        if file != upstream or loaded.upstream != written
    ]
    if loaded.upstream != written:
        sentences.insert(0, f"{upstream} is not what `lab use {choice.method}` wrote")
    return sentences


def _backend_status(condition: Condition | None) -> dict[str, Any]:
    """The status fields that only a backend has; empty without a condition."""
    if condition is None:
        return {}
    return {
        "profile": condition.profile,
        "limits": dict(condition.limits),
        "time_scale": condition.time_scale,
        "slow": condition.slow,
        "faults": condition.faults,
    }


def use(lab: Lab, choice: methods.Choice, *, trace: bool = False) -> nginx.Switch:
    """Switch nginx to a choice; return when only new workers take requests.

    With `trace`, nginx writes its picks to a debug log until the next switch.
    """
    needs = methods.method(choice.method).needs
    running = nginx.version(lab) if any(needs) else needs
    if running < needs:
        raise UsageError(
            f"{choice.method} needs nginx {dotted(needs)} or newer; this is {dotted(running)}",
            "NGINX=mainline lab up",
        )
    if choice.prefix.reader == NJS and not nginx.has_njs(lab):
        raise UsageError("this nginx has no njs module", "--reader map, or NGINX=mainline lab up")
    switch = nginx.switch(lab, methods.render(choice), trace=trace)
    _save_choice(lab, choice, switch.log_size)
    return switch


def dotted(numbers: tuple[int, ...]) -> str:
    """A version as text: 1.31.3."""
    return ".".join(str(number) for number in numbers)


def missing(lab: Lab) -> list[str]:
    """The backends of the current choice whose containers were removed by something else."""
    present = {compose.service(container) for container in compose.containers(lab)}
    return [name for name in saved(lab).backends if name not in present]


def refuse_missing(lab: Lab) -> None:
    """Raise LabError if a backend's container was removed."""
    if names := missing(lab):
        raise LabError(
            f"missing: {', '.join(names)}; something else removed the container",
            f"lab up --backends {len(saved(lab).backends)}",
        )


def choose(lab: Lab, method: str, **options: object) -> methods.Choice:
    """The choice of a method for the running backends; LabError if one was removed."""
    refuse_missing(lab)
    names = tuple(compose.service(container) for container in compose.backend_containers(lab))
    return methods.Choice(method, names, **options)  # type: ignore[arg-type]  # Choice checks its own words
