"""Send a scenario to the lab: set up its fleet, play its timeline, collect, judge."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..accounts.judging.load import judge_load, write_figures
from ..accounts.outcome import Loaded
from ..errors import LabError
from ..evidence import folder
from ..evidence.timeline import FIRST_CLAIM, Done, Event, Timeline
from ..nginxconf import methods, sources
from ..signals import INTERRUPTIONS
from ..stack import behaviour, compose, engine, faults, nginx
from ..stack.compose import Lab
from ..stack.shell import in_parallel
from ..traffic import sender, workload
from ..traffic.scenario import Machine, Scenario, described, machines
from .collect import WATCHED, Sent, begin, keep_evidence, tenures, undone_incidents
from .fleet import choose, conditions, missing, saved, up, use

if TYPE_CHECKING:
    from ..evidence.record import Record

LAST_ANSWER = 120.0  # seconds for which a run waits after its last request was due
AROUND = 5.0  # seconds that a run takes in addition to its load: prepare, switch, collect


def choice_without_backends(
    method: str, weights: str = "", key: str = "", measure: str = ""
) -> methods.Choice:
    """A choice of method without backends, for a fleet that is not running yet."""
    known = methods.method(method)
    return methods.Choice(known.name, (), methods.parse_weights(weights), key=key, measure=measure)


def expected_seconds(scenario: Scenario, method: str) -> float:
    """Estimate the seconds that a live load takes, by simulating it."""
    from ..simulate import simulation  # loads compiled code, which a load itself does not need

    return AROUND + (simulation.simulate(scenario, method).figures.seconds or 0.0)


def prepare(lab: Lab, scenario: Scenario) -> tuple[str, ...]:
    """Bring up the scenario's fleet and give each backend its timing.

    Returns a line for each backend whose condition this changed. Raises LabError if something in
    the lab is broken, because that may be on purpose.
    """
    before = conditions(lab) if compose.containers(lab) else {}
    if broken := {name: was for name, was in before.items() if not was.is_sound}:
        shown = "; ".join(f"{name}: {was}" for name, was in broken.items())
        raise LabError(f"the lab is broken: {shown}", "lab heal, then run the command again")
    removed = dict.fromkeys(missing(lab), "missing") if before else {}
    up(lab, scenario.backends, scenario.profile, scenario.time_scale)
    apply_timing(lab, scenario)
    after = conditions(lab) if before else {}
    return tuple(
        f"{name} was {was}, now {after.get(name, 'gone')}"
        for name, was in (before | removed).items()
        if after.get(name) != was and name in (*before, *after)
    )


def apply_timing(lab: Lab, scenario: Scenario) -> None:
    """Set the scenario's timing on every running backend, and empty its prefix cache."""
    running = {compose.service(container) for container in compose.backend_containers(lab)}
    present = [(name, machine) for name, machine in machines(scenario).items() if name in running]

    def equip_one(backend: tuple[str, Machine]) -> None:
        name, machine = backend
        timing = {"profile": machine.profile, "time_scale": scenario.time_scale}
        behaviour.request(lab, name, "PUT", "/profile", {**timing, **machine.limits.given})
        behaviour.request(lab, name, "PUT", "/behaviour", {"slow": machine.slow})
        behaviour.request(lab, name, "DELETE", "/cache")

    in_parallel(equip_one, present)


def set_up(
    lab: Lab, scenario: Scenario, choice: methods.Choice | None
) -> tuple[str, tuple[str, ...]]:
    """Prepare the fleet and switch it to the method; the method's name, and what this changed."""
    names = tuple(f"backend-{number}" for number in range(1, scenario.backends + 1))
    if choice is not None:
        methods.render(replace(choice, backends=names))  # a wrong choice leaves the lab as it is
    changed = prepare(lab, scenario)
    chosen = replace(choice or saved(lab), backends=names)
    use(lab, chosen)
    return chosen.method, changed


def load(
    lab: Lab,
    scenario: Scenario,
    choice: methods.Choice | None = None,
    on_progress: sender.OnProgress | None = None,
) -> Loaded:
    """Send a scenario by one method (None: the current one), collect the logs and judge them.

    UsageError for a choice that does not suit the scenario's backends. An interruption has a note
    that names the folder with what was sent until then.
    """
    method, changed = set_up(lab, scenario, choice)
    collector = replace(begin(lab), workers=nginx.workers(lab))
    limit = None if scenario.duration is None else scenario.duration + LAST_ANSWER
    key_of = sources.key_as_sent(lab.active / FIRST_CLAIM)
    records: list[Record] = []
    seen: list[Mapping[str, Any]] = []

    def collect(interrupted: bool = False) -> Path:
        collector.timeline.incidents += undone_incidents(seen, collector.states, collector.timeline)
        reached = sum(record.status is not None for record in records)
        return collector.collect(
            Sent(reached, tuple(sorted(records, key=lambda record: record.number))),
            kind="load",
            method=method,
            traffic=scenario.name,
            scenario=described(scenario),
            notes={"changed": changed},
            interrupted=interrupted,
        )

    try:
        with engine.Events(WATCHED) as events, playing(lab, scenario, collector.timeline):
            plan = workload.plan(scenario)
            sender.run(
                plan, lab.door, on_progress, limit=limit, records_so_far=records, key_of=key_of
            )
            seen += events.read()  # before anything is repaired
    except INTERRUPTIONS as stopped:
        keep_evidence(stopped, lambda: collect(interrupted=True))
        raise
    place = collect()
    loaded = judge_load(place, folder.read(place))
    write_figures(loaded)
    return loaded


# --- the timeline -------------------------------------------------------------------------


@contextmanager
def playing(lab: Lab, scenario: Scenario, timeline: Timeline) -> Iterator[None]:
    """Carry out the scenario's events at their times, in a separate thread, while the block runs.

    The timeline records what was done and when. Afterwards, what is still broken is repaired.
    """
    over = threading.Event()
    began = time.monotonic()

    def play() -> None:
        for event in scenario.timeline:
            if over.wait(max(0.0, began + event.at - time.monotonic())):
                return
            start = time.time()
            timeline.done.append(_carry_out(lab, scenario, event, began))
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
            apply_timing(lab, scenario)
        timeline.mended = time.time()


def _carry_out(lab: Lab, scenario: Scenario, event: Event, began: float) -> Done:
    """Carry out one event; return it with its times, and with its error if it failed."""
    started = time.monotonic() - began
    error = ""
    try:
        _ACTIONS[event.do](lab, scenario, event)
    except LabError as failed:
        error = failed.message
    return Done(event, started, time.monotonic() - began, error)


def _scale(lab: Lab, scenario: Scenario, event: Event) -> None:
    up(lab, event.backends or scenario.backends, scenario.profile, scenario.time_scale)
    apply_timing(lab, scenario)


def _use(lab: Lab, _scenario: Scenario, event: Event) -> None:
    use(lab, choose(lab, event.method, weights=event.weights, key=event.key))


_ACTIONS: Mapping[str, Callable[[Lab, Scenario, Event], object]] = {
    "fault": lambda lab, _, event: faults.fault(lab, event.backend, event.kind, event.value),
    "heal": lambda lab, _, event: faults.heal(lab, event.backend),
    "scale": _scale,
    "use": _use,
    "reload": lambda lab, _, __: faults.reload(lab),
}
