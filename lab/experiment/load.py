"""Send a scenario to a fleet, join three records of every request, compute the figures."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ..accounts.outcome import Loaded, judge_load, write_figures
from ..errors import LabError
from ..evidence import folder
from ..evidence.timeline import Done, Event, Timeline, Window
from ..nginxconf import methods
from ..stack import compose, faults
from ..stack.compose import Lab
from ..traffic import scenario as scenarios
from ..traffic import sender, workload
from .collect import Sent, begin, tenures
from .fleet import choose, conditions, of_each, saved, up, use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..traffic.scenario import Machine, Scenario

LAST_ANSWER = 120.0  # seconds that a run may go on after its last request was due
AROUND = 5.0  # seconds that a run takes beside its load: prepare, switch the method, collect


def blank(method: str, weights: str = "", key: str = "", measure: str = "") -> methods.Choice:
    """A choice of method before there is a fleet to choose for."""
    known = methods.method(method)
    return methods.Choice(known.name, (), methods.parse_weights(weights), key=key, measure=measure)


def expected_seconds(scenario: "Scenario", method: str) -> float:
    """Estimate how many seconds a live load takes, by simulating it."""
    from ..simulate import simulation  # loads compiled code, which a load itself does not need

    return AROUND + (simulation.simulate(scenario, method).figures.seconds or 0.0)


def prepare(lab: Lab, scenario: "Scenario") -> tuple[str, ...]:
    """Bring up the scenario's fleet, healthy, each backend with its own timing.

    Returns what was otherwise before, a line a backend. Raises LabError for a lab in which
    something is broken: whoever broke it may still want it so.
    """
    before = conditions(lab) if compose.containers(lab) else {}
    if broken := {name: was for name, was in before.items() if not was.is_sound}:
        shown = "; ".join(f"{name}: {was}" for name, was in broken.items())
        raise LabError(f"the lab is broken: {shown}", "lab heal, then run the command again")
    up(lab, scenario.backends, scenario.profile, scenario.time_scale)
    equip(lab, scenario)
    after = conditions(lab) if before else {}
    return tuple(
        f"{name} was {was}, now {after.get(name, 'gone')}"
        for name, was in before.items()
        if after.get(name) != was
    )


def equip(lab: Lab, scenario: "Scenario") -> None:
    """Give every running backend its timing by the scenario, and an empty prefix cache."""
    running = {compose.service(container) for container in compose.backend_containers(lab)}
    machines = scenarios.machines(scenario).items()
    present = [(name, machine) for name, machine in machines if name in running]

    def equip_one(backend: "tuple[str, Machine]") -> None:
        name, machine = backend
        timing = {"profile": machine.profile, "time_scale": scenario.time_scale}
        faults.tell(lab, name, "PUT", "/profile", {**timing, **machine.limits.given})
        faults.tell(lab, name, "PUT", "/behaviour", {"slow": machine.slow})
        faults.tell(lab, name, "DELETE", "/cache")

    of_each(equip_one, present)


def load(
    lab: Lab,
    scenario: "Scenario",
    choice: methods.Choice | None = None,
    on_progress: sender.OnProgress | None = None,
) -> Loaded:
    """Send a scenario by one method (None: the one that serves) and judge what every side saw."""
    changed = prepare(lab, scenario)
    chosen = _fitted(lab, choice or saved(lab))
    use(lab, chosen)
    collector = begin(lab)
    limit = None if scenario.duration is None else scenario.duration + LAST_ANSWER
    with playing(lab, scenario, collector.timeline):
        plan = workload.plan(scenario)
        records = sender.run(plan, lab.door, on_progress, limit=limit)
    collector.timeline.windows[:] = [_undisturbed(collector.timeline)]
    reached = sum(record.status is not None for record in records)
    place = collector.collect(
        Sent(reached, tuple(records)),
        kind="load",
        method=chosen.method,
        traffic=scenario.name,
        scenario=scenarios.described(scenario),
        notes={"changed": changed},
    )
    loaded = judge_load(place, folder.read(place))
    write_figures(loaded)
    return loaded


def _undisturbed(timeline: Timeline) -> Window:
    """The window up to the first event, which changes nginx's servers or breaks one."""
    first = min((timeline.began + done.began for done in timeline.done), default=None)
    return Window(timeline.began, first)


def _fitted(lab: Lab, choice: methods.Choice) -> methods.Choice:
    """A choice made before the scenario had its fleet, for the backends that run now."""
    fresh = choose(lab, choice.method)
    weights = choice.weights if len(choice.weights) == len(fresh.backends) else ()
    return replace(choice, backends=fresh.backends, weights=weights)


# --- the timeline -------------------------------------------------------------------------


@contextmanager
def playing(lab: Lab, scenario: "Scenario", timeline: Timeline) -> "Iterator[None]":
    """Carry out the scenario's events at their times, in a separate thread, during the load.

    The timeline records what was done. Whatever is still broken afterwards is mended.
    """
    over = threading.Event()
    began = time.monotonic()

    def play() -> None:
        for event in scenario.timeline:
            if over.wait(max(0.0, began + event.at - time.monotonic())):
                return
            start = time.time()
            timeline.done.append(_happen(lab, scenario, event, began))
            timeline.tenures += tenures(lab, start, start)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=120)
        if any(done.event.do == "fault" for done in timeline.done):
            faults.heal(lab)
            equip(lab, scenario)
        timeline.mended = time.time()


def _happen(lab: Lab, scenario: "Scenario", event: Event, began: float) -> Done:
    """Carry out one event; its error is recorded as part of the run."""
    started = time.monotonic() - began
    error = ""
    try:
        _ACTIONS[event.do](lab, scenario, event)
    except LabError as failed:
        error = failed.message
    return Done(event, started, time.monotonic() - began, error)


def _scale(lab: Lab, scenario: "Scenario", event: Event) -> None:
    up(lab, event.backends or scenario.backends, scenario.profile, scenario.time_scale)
    equip(lab, scenario)


def _use(lab: Lab, _scenario: "Scenario", event: Event) -> None:
    use(lab, choose(lab, event.method, weights=event.weights, key=event.key))


_ACTIONS: Mapping[str, Callable[[Lab, "Scenario", Event], object]] = {
    "fault": lambda lab, _, event: faults.fault(lab, event.backend, event.kind, event.value),
    "heal": lambda lab, _, event: faults.heal(lab, event.backend),
    "scale": _scale,
    "use": _use,
    "reload": lambda lab, _, __: faults.reload(lab),
}
