"""The running lab: bring it up, switch its method, report its status."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from ..backends.llm.profiles import PROFILES, Limits
from ..errors import LabError, UsageError
from ..nginxconf import methods
from ..nginxconf.prompt import NJS, Prefix
from ..setup import steps as images
from ..stack import behaviour, compose, nginx
from ..stack.compose import Lab
from ..stack.shell import write_whole

NO_LIMITS = Limits()

_RUNNING = ("healthy", "unhealthy", "starting", "running")  # states in which commands can be run

_T = TypeVar("_T")
_R = TypeVar("_R")


def up(
    lab: Lab,
    backends: int = 3,
    profile: str | None = None,
    time_scale: float | None = None,
    limits: Limits = NO_LIMITS,
) -> None:
    """Bring the lab up, or change the number of its backends without losing a request.

    A lab that runs keeps the profile, time scale and limits that are not given; a profile comes
    with its own limits.
    """
    names = tuple(f"backend-{number}" for number in range(1, backends + 1))
    settings = _settings(lab, profile, time_scale, limits)
    if not compose.containers(lab):
        first = methods.Choice(methods.DEFAULT.name, names)
        write_whole(lab.active / "upstream.conf", methods.render(first))
        _remember(lab, first, 0)
        compose.up(lab, backends, settings)
        return
    choice = refit(saved(lab), names)
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
    """Start a Prometheus that scrapes the backends; its image is built the first time."""
    images.build_prometheus()
    compose.up_prometheus(lab)


def reset(lab: Lab, settings: Mapping[str, str]) -> None:
    """Reset every backend to these settings, without faults."""
    timing = {"profile": settings["LAB_PROFILE"], "time_scale": float(settings["LAB_TIME_SCALE"])}
    limits = {name.lower(): int(settings[f"LAB_{name}"] or 0) for name in compose.LIMITS}

    def tell(backend: str) -> None:
        behaviour.tell(lab, backend, "DELETE", "/behaviour")
        behaviour.tell(lab, backend, "PUT", "/profile", {**timing, **limits})

    of_each(tell, [compose.service(container) for container in compose.backend_containers(lab)])


@dataclass(frozen=True, slots=True)
class Condition:
    """How a backend runs: its profile, its time scale, its slow factor, what else it does wrong.

    `limits` are those that are not its profile's.

    `state` is the container's; the rest is unknown ("", 0) where it does not answer.
    """

    state: str
    profile: str = ""
    time_scale: float = 0.0
    slow: float = 1.0
    wrong: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether it runs without faults other than slowness."""
        return self.state == "healthy" and not self.wrong

    @property
    def faults(self) -> str:
        """What is wrong, in words: `slow 4, error_rate 0.5`."""
        slow = (f"slow {self.slow:g}",) if self.slow != 1 else ()
        return ", ".join((*slow, *self.wrong))

    @property
    def timing(self) -> str:
        """The profile, and the limits that are not its own: `h100-8b, max_num_seqs 4`."""
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
    answers = of_each(lambda name: _condition(lab, name, states[name]), list(states))
    return dict(zip(states, answers, strict=True))


def _condition(lab: Lab, name: str, state: str) -> Condition:
    if state not in _RUNNING:
        return Condition(state)
    try:
        present = behaviour.tell(lab, name, "GET", "/behaviour")
        profile = behaviour.tell(lab, name, "GET", "/profile")
    except LabError:
        return Condition(state, wrong=("its behaviour port does not answer",))
    wrong = tuple(
        kind if present[field] is True else f"{kind} {present[field]:g}"
        for kind, field in _SHOWN.items()
        if present[field]
    )
    return Condition(
        state,
        str(profile["name"]),
        float(profile["time_scale"]),
        float(present["slow"]),
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


def of_each(ask: Callable[[_T], _R], all_: Sequence[_T]) -> list[_R]:
    """Call a function for all in parallel; return the answers in order."""
    with ThreadPoolExecutor(max(1, len(all_))) as pool:
        return list(pool.map(ask, all_))


def _settings(
    lab: Lab, profile: str | None, time_scale: float | None, limits: Limits
) -> dict[str, str]:
    """The variables of compose.yaml: as given, else as the lab runs, else the defaults."""
    if profile is not None and profile not in PROFILES:
        raise UsageError(f'no profile "{profile}"', f"one of {', '.join(PROFILES)}")
    if time_scale is not None and not 0.001 <= time_scale <= 10_000:
        raise UsageError(f"--time-scale {time_scale:g}", "a number from 0.001 to 10000")
    running = compose.settings(lab)
    scale = running["TIME_SCALE"] if time_scale is None else f"{time_scale:g}"
    kept = {} if profile else {name: running[name] for name in compose.LIMITS}
    given = {name.upper(): str(limit) for name, limit in limits.given.items()}
    return {
        "LAB_PROFILE": profile or running["PROFILE"],
        "LAB_TIME_SCALE": scale,
        **{f"LAB_{name}": (kept | given).get(name, "") for name in compose.LIMITS},
    }


def refit(choice: methods.Choice, names: tuple[str, ...]) -> methods.Choice:
    """The same choice for other backends: new ones get weight 1, removed ones are left out."""
    old = choice.weights or (1,) * len(choice.backends)
    weights = dict(zip(choice.backends, old, strict=True))
    fitted = tuple(weights.get(name, 1) for name in names)
    parameters = {who: what for who, what in choice.parameters.items() if who in ("", *names)}
    return replace(choice, backends=names, weights=fitted, parameters=parameters)


def _remember(lab: Lab, choice: methods.Choice, mark: int) -> None:
    """Write a choice where the next `lab up` reads it, and where in nginx's log it begins."""
    write_whole(lab.active / "choice.json", json.dumps(asdict(choice), indent=1) + "\n")
    write_whole(lab.active / "log_mark", f"{mark}\n")
    write_whole(lab.active / "targets.json", json.dumps(targets(choice.backends), indent=1) + "\n")


def targets(backends: Sequence[str]) -> list[dict[str, Any]]:
    """The backends as targets of a Prometheus, which reaches them by nginx's lab door."""
    return [
        {
            "targets": ["nginx:8081"],
            "labels": {"__metrics_path__": f"/metrics/{name}", "backend": name},
        }
        for name in backends
    ]


def saved(lab: Lab) -> methods.Choice:
    """The choice that serves; round robin where none is known."""
    try:
        options = json.loads((lab.active / "choice.json").read_text())
        options["backends"], options["weights"] = (
            tuple(options["backends"]),
            tuple(options["weights"]),
        )
        options["prefix"] = Prefix(**options.get("prefix", {}))
        return methods.Choice(**options)
    except (OSError, ValueError, TypeError, KeyError):
        return methods.Choice(methods.DEFAULT.name, ())


def log_mark(lab: Lab) -> int:
    """Where in nginx's log the method that serves began, in bytes."""
    try:
        return int((lab.active / "log_mark").read_text())
    except (OSError, ValueError):
        return 0


def status(lab: Lab) -> dict[str, Any]:
    """What runs: containers with state and address, backends with their timing, doors, method.

    `differs` says where nginx does not run what the lab wrote. The version of an nginx that is
    down is None.
    """
    containers = compose.containers(lab)
    backends = conditions(lab) if containers else {}
    states = {compose.service(container): compose.health(container) for container in containers}
    runs = states.get("nginx") in _RUNNING
    return {
        "project": lab.project,
        "front": lab.front,
        "door": lab.door,
        "method": saved(lab).method if containers else None,
        "nginx": dotted(nginx.version(lab)) if runs else None,
        "differs": differences(lab) if runs else [],
        "containers": [
            {
                "service": compose.service(container),
                "state": states[compose.service(container)],
                "address": compose.address(container),
                **_told(backends.get(compose.service(container))),
            }
            for container in containers
        ],
    }


def differences(lab: Lab) -> list[str]:
    """Where nginx does not run what the lab wrote, a sentence each."""
    choice, present = saved(lab), nginx.loaded(lab)
    written = hashlib.sha256(methods.render(choice).encode()).hexdigest()
    upstream = "active/upstream.conf"
    sentences = [
        f"{file} changed after nginx loaded it: nginx runs the earlier version"
        for file in present.changed
        if file != upstream or present.upstream != written
    ]
    if present.upstream != written:
        sentences.insert(0, f"{upstream} is not what `lab use {choice.method}` wrote")
    return sentences


def _told(condition: Condition | None) -> dict[str, Any]:
    """A backend's part of the status: what other containers do not have."""
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
    """Make nginx balance as chosen; return when only new workers take requests.

    `trace`: nginx also logs its picks, until the next switch.
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
    _remember(lab, choice, switch.log_size)
    return switch


def dotted(numbers: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(str(number) for number in numbers)


def choose(lab: Lab, method: str, **options: object) -> methods.Choice:
    """The choice of a method for the backends that run now."""
    names = tuple(compose.service(container) for container in compose.backend_containers(lab))
    return methods.Choice(method, names, **options)  # type: ignore[arg-type]  # Choice checks its own words
