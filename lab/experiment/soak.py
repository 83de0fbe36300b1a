"""Inject faults under traffic and account for every request."""

import random
import secrets
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from .. import verdict
from ..accounts.fates import of_record
from ..accounts.outcome import Soaked, judge_soak
from ..evidence.record import Record
from ..evidence.timeline import FIRST_CLAIM, Done, Event, Window
from ..fault_kinds import KINDS
from ..nginxconf import upstream
from ..nginxconf.methods import DEFAULT, METHODS
from ..stack import compose, faults, nginx, sdk
from ..stack.compose import Lab
from ..traffic import sender
from ..traffic.mixture import mixture
from . import fleet
from .collect import Sent, begin, tenures

RATE = 300.0  # requests a second
OPEN = 400  # requests at once: the engine's port forwarding takes six descriptors for each
ANSWER_SECONDS = 60.0
FAIL_TIMEOUT = 1  # seconds: a ban that outlasts the next fault would leave nobody to answer
QUIET = 700  # requests without a fault, by which a recovery is judged; draws take more
LASTS = 0.3  # seconds that the longest requests last: see `_ask`

SWITCHES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (DEFAULT.name, (3, 2, 1)),
    *((name, ()) for name, method in METHODS.items() if method.soaked),
)
NGINX_FAULTS = [kind.name for kind in KINDS.values() if kind.soak_on_nginx]
ALL_FAULTS = [kind.name for kind in KINDS.values() if kind.soak_on_all]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the soak: a fault repaired after `seconds`, a switch, or a reload.

    `do` is the kind of a fault, "use" or "reload"; `target` what breaks, or the method; `weights`
    by backend, "" for equal ones.
    """

    do: str
    target: str = faults.NGINX
    seconds: float = 0.0
    weights: tuple[int, ...] = ()

    def __str__(self) -> str:
        by = f" {','.join(map(str, self.weights))}" if self.weights else ""
        held = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.do} {self.target}{by}{held}"


def steps(seed: int, backends: Sequence[str]) -> Iterator[Step]:
    """Steps without end; the same seed and backends give the same ones."""
    dice = random.Random(seed)
    kinds = faults.kinds("backend-1")
    while True:
        roll = dice.random()
        if roll < 0.15:
            yield Step("reload")
        elif roll < 0.30:
            yield _switch(dice, len(backends))
        elif roll < 0.35:
            yield Step(dice.choice(NGINX_FAULTS), faults.NGINX, dice.uniform(0.2, 1.0))
        elif roll < 0.40:
            yield Step(dice.choice(ALL_FAULTS), faults.ALL, dice.uniform(0.2, 1.0))
        else:
            yield _break(dice, dice.choice(kinds), backends)


def steps_of(counts: Mapping[str, int], seed: int, backends: Sequence[str]) -> list[Step]:
    """Exactly so many steps of each kind, in an order drawn from the seed."""
    dice = random.Random(seed)
    words = [kind for kind, number in counts.items() for _ in range(number)]
    dice.shuffle(words)
    return [_step(dice, word, backends) for word in words]


def _step(dice: random.Random, word: str, backends: Sequence[str]) -> Step:
    if word == "reload":
        return Step("reload")
    return _switch(dice, len(backends)) if word == "use" else _break(dice, word, backends)


def _switch(dice: random.Random, backends: int) -> Step:
    method, weights = dice.choice(SWITCHES)
    return Step("use", method, weights=weights if len(weights) == backends else ())


def _break(dice: random.Random, kind: str, backends: Sequence[str]) -> Step:
    return Step(kind, dice.choice(list(backends)), dice.uniform(0.2, 1.5))


def soak(
    lab: Lab,
    seconds: float = 600.0,
    seed: int | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
    *,
    planned: Iterable[Step] | None = None,
    rate: float = RATE,
    next_upstream: str = "",
) -> Soaked:
    """Do `planned` steps (else random ones) for `seconds` under traffic, and account for it.

    A seed is drawn and told where none is given; the same seed does the same steps in the same
    order. Between two steps the lab is whole again and nobody is banned. The lab is left mended.
    """
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    on_progress(f"seed {seed}")
    run = _Run(lab, next_upstream, rate)
    before = memory(lab)
    began = time.time()
    try:
        with traffic(lab.door, seed, rate) as records:
            for step in steps(seed, run.backends) if planned is None else planned:
                if time.time() - began > seconds:
                    break
                on_progress(f"{time.time() - began:6.1f} s  {step}")
                run.do(step)
    finally:
        faults.heal(lab)
    after = memory(lab)
    notes = {
        "seed": seed,
        "seconds": time.time() - began,
        "steps": [str(step) for step in run.steps],
        "memory": {name: [held, after.get(name, 0)] for name, held in before.items()},
    }
    return judge_soak(run.collect(records, rate, notes))


class _Run:
    """A soak under way: its collector, and what was done."""

    def __init__(self, lab: Lab, next_upstream: str, rate: float) -> None:
        self.lab = lab
        self.backends = [
            compose.service(container) for container in compose.backend_containers(lab)
        ]
        self.steps: list[Step] = []
        self._next_upstream = next_upstream
        self._rate = rate
        self._use(DEFAULT.name, ())
        self._collector = begin(lab)
        self._timeline = self._collector.timeline
        self._timeline.windows.clear()
        self._claim = FIRST_CLAIM

    def do(self, step: Step) -> None:
        """Do a step, undo it, and wait until its bans are over."""
        if step.do == "use":
            with self._recorded(Event(0.0, "use", method=step.target, weights=step.weights)):
                self._use(step.target, step.weights)
            self._claim = self._collector.claim_again()
        elif step.do == "reload":
            with self._recorded(Event(0.0, "reload")):
                faults.reload(self.lab)
        else:
            self._fault(step)
        nginx.wait_for(lambda: _answers(self.lab.door), 10, f"{self.lab.door} to answer")
        self.steps.append(step)

    def _use(self, method: str, weights: tuple[int, ...]) -> None:
        """Switch nginx to another method."""
        choice = fleet.choose(
            self.lab,
            method,
            weights=weights,
            parameters={"": f"max_fails=1 fail_timeout={FAIL_TIMEOUT}s"},
            next_upstream=self._next_upstream,
        )
        fleet.use(self.lab, choice)

    def _fault(self, step: Step) -> None:
        taken = KINDS[step.do].value
        value = taken.soak if taken else None
        start = time.time()
        with self._recorded(Event(0.0, "fault", step.target, step.do, value)):
            faults.fault(self.lab, step.target, step.do, value)
        _pass(step.seconds)
        mending = time.time()
        with self._recorded(Event(0.0, "heal")):
            faults.heal(self.lab)
        self._timeline.tenures += tenures(self.lab, start, mending)
        _pass(FAIL_TIMEOUT + 1)
        quiet = time.time()
        claim = upstream.read(self.lab.active / FIRST_CLAIM)
        _pass(1.05 * verdict.hits_to_tell(claim, QUIET) / self._rate)  # some come late
        window = Window(quiet, time.time(), self._claim, fresh=False, after=str(step))
        self._timeline.windows.append(window)
        _pass(LASTS)  # what began in quiet ends in quiet

    @contextmanager
    def _recorded(self, event: Event) -> Iterator[None]:
        """Write an event into the timeline, with the moments of its beginning and its end."""
        start = time.time() - self._timeline.began
        yield
        end = time.time() - self._timeline.began
        self._timeline.done.append(Done(replace(event, at=start), start, end))

    def collect(self, records: Sequence[Record], rate: float, notes: Mapping[str, Any]) -> Path:
        """Collect what every side logged."""
        self._timeline.mended = time.time()
        answered = sum(not of_record(record).failed for record in records)
        return self._collector.collect(
            Sent(answered, tuple(records)),
            kind="soak",
            method="several",
            traffic=f"{rate:g} requests a second, mixed",
            notes=notes,
        )


def _answers(door: str) -> bool:
    """Whether nginx answers at a door: the engine's port forwarding is not what broke."""
    try:
        with urllib.request.urlopen(f"{door}/nginx_status", timeout=5) as response:  # noqa: S310 - a lab's own http address
            return bool(response.status == 200)
    except OSError:
        return False


def _pass(seconds: float) -> None:
    """Let traffic continue for the length of a fault; this waits for no condition."""
    threading.Event().wait(seconds)


def memory(lab: Lab) -> dict[str, int]:
    """The bytes that each service's processes hold, without what the kernel caches of files."""
    handles = [sdk.handle(container) for container in compose.containers(lab)]
    with ThreadPoolExecutor(len(handles)) as pool:  # the engine takes a second or two for each
        return dict(zip(map(compose.service, handles), pool.map(_held, handles), strict=True))


def _held(container: Container) -> int:
    stats: Any = container.stats(stream=False)
    parts = stats["memory_stats"].get("stats", {})
    return int(parts.get("anon", parts.get("rss", 0)))


@contextmanager
def traffic(base_url: str, seed: int, rate: float = RATE) -> Iterator[list[Record]]:
    """Send GETs, POSTs and streams, `rate` a second, until the block ends; a record of each.

    The records are complete when the block has ended: by then every request has its answer.
    """
    records: list[Record] = []
    over = threading.Event()
    plan = mixture(seed, rate, over.is_set)

    def send() -> None:
        records.extend(sender.run(plan, base_url, timeout=ANSWER_SECONDS, cap=OPEN))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield records
    finally:
        over.set()
        thread.join()
