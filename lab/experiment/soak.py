"""Inject faults under traffic and account for every request."""

import random
import secrets
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from .. import verdict
from ..accounts.fates import of_record
from ..accounts.judging.soak import judge_soak
from ..accounts.judging.windows import judge_so_far
from ..accounts.outcome import Soaked
from ..evidence.record import Record
from ..evidence.timeline import FIRST_CLAIM, Done, Event, Timeline, Window
from ..fault_kinds import KINDS
from ..nginxconf import upstream
from ..nginxconf.methods import DEFAULT, METHODS
from ..signals import INTERRUPTIONS
from ..stack import compose, faults, nginx, sdk
from ..stack.compose import Lab
from ..stack.shell import in_parallel, wait_for
from ..traffic import sender
from ..traffic.mixture import mixture
from ..word import Word
from . import fleet
from .collect import Sent, begin, incidents, keep_evidence, states, tenures

RATE = 300.0  # requests a second
OPEN = 400  # requests at once: the engine's port forwarding takes six descriptors for each
ANSWER_SECONDS = 60.0
FAIL_TIMEOUT = 1  # seconds: servers still banned during the next fault would leave none to answer
QUIET = 700  # requests without a fault, by which a recovery is judged; draws need more
STRETCHES = 6  # maximum number of stretches of QUIET requests that are judged after a fault
SLOWER = 4  # times slower is the traffic of the stretches after the first: see until_decided
LASTS = 0.3  # seconds that the longest requests last: see traffic/mixture.py

SWITCHES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (DEFAULT.name, (3, 2, 1)),
    *((name, ()) for name, method in METHODS.items() if method.soaked),
)
NGINX_FAULTS = [kind.name for kind in KINDS.values() if kind.soak_on_nginx]
ALL_FAULTS = [kind.name for kind in KINDS.values() if kind.soak_on_all]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the soak: a fault that is repaired after `seconds`, a switch, or a reload.

    `do` is the kind of a fault, "use" or "reload"; `target` is the service that breaks, or the
    method; `weights` has the weight of each backend, empty for equal ones.
    """

    do: str
    target: str = faults.NGINX
    seconds: float = 0.0
    weights: tuple[int, ...] = ()

    def __str__(self) -> str:
        weights = f" {','.join(map(str, self.weights))}" if self.weights else ""
        duration = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.do} {self.target}{weights}{duration}"


def steps(seed: int, backends: Sequence[str]) -> Iterator[Step]:
    """Yield random steps without end; the same seed and backends give the same steps."""
    rng = random.Random(seed)
    kinds = faults.kinds("backend-1")
    while True:
        roll = rng.random()
        if roll < 0.15:
            yield Step("reload")
        elif roll < 0.30:
            yield _switch(rng, len(backends))
        elif roll < 0.35:
            yield Step(rng.choice(NGINX_FAULTS), faults.NGINX, rng.uniform(0.2, 1.0))
        elif roll < 0.40:
            yield Step(rng.choice(ALL_FAULTS), faults.ALL, rng.uniform(0.2, 1.0))
        else:
            yield _break(rng, rng.choice(kinds), backends)


def steps_of(counts: Mapping[str, int], seed: int, backends: Sequence[str]) -> list[Step]:
    """The number of steps of each kind in `counts`, in random order by the seed."""
    rng = random.Random(seed)
    words = [kind for kind, number in counts.items() for _ in range(number)]
    rng.shuffle(words)
    return [_step(rng, word, backends) for word in words]


def _step(rng: random.Random, word: str, backends: Sequence[str]) -> Step:
    if word == "reload":
        return Step("reload")
    return _switch(rng, len(backends)) if word == "use" else _break(rng, word, backends)


def _switch(rng: random.Random, backends: int) -> Step:
    method, weights = rng.choice(SWITCHES)
    return Step("use", method, weights=weights if len(weights) == backends else ())


def _break(rng: random.Random, kind: str, backends: Sequence[str]) -> Step:
    return Step(kind, rng.choice(list(backends)), rng.uniform(0.2, 1.5))


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
    """Do steps under traffic for `seconds`, random ones or `planned`; account for every request.

    The same seed gives the same steps in the same order; without a seed, one is drawn and given to
    `on_progress`. Between two steps the lab is repaired and no server is banned. Everything is
    repaired at the end. An interruption has a note that names the folder with what was seen until
    then.
    """
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    on_progress(f"seed {seed}")
    run = _Run(lab, next_upstream, rate)
    before = memory(lab)
    began = time.time()
    records: list[Record] = []

    def collect(interrupted: bool = False) -> Path:
        after = memory(lab)
        notes = {
            "seed": seed,
            "seconds": time.time() - began,
            "steps": [str(step) for step in run.steps],
            "memory": {name: [size, after.get(name, 0)] for name, size in before.items()},
        }
        return run.collect(records, notes, interrupted=interrupted)

    try:
        with traffic(lab.door, seed, lambda: run.rate) as records:
            todo = steps(seed, run.backends) if planned is None else planned
            run.do_all(todo, began, seconds, on_progress)
    except INTERRUPTIONS as stopped:
        keep_evidence(stopped, lambda: collect(interrupted=True))
        raise
    finally:
        faults.heal(lab)
    return judge_soak(collect())


class _Run:
    """A soak in progress: its collector, its rate of requests, and the steps done so far."""

    def __init__(self, lab: Lab, next_upstream: str, rate: float) -> None:
        self.lab = lab
        self.backends = [
            compose.service(container) for container in compose.backend_containers(lab)
        ]
        self.steps: list[Step] = []
        self._next_upstream = next_upstream
        self._full_rate = rate
        self.rate = rate  # requests a second that are sent now
        self._use(DEFAULT.name, ())
        self._collector = begin(lab)
        self._timeline = self._collector.timeline
        self._timeline.windows.clear()
        self._claim = FIRST_CLAIM

    def do_all(
        self,
        planned: Iterable[Step],
        began: float,
        seconds: float,
        on_progress: Callable[[str], None],
    ) -> None:
        """Do one step after the other until `seconds` after `began`; repair what is interrupted."""
        try:
            for step in planned:
                if time.time() - began > seconds:
                    break
                on_progress(f"{time.time() - began:6.1f} s  {step}")
                self.do(step)
            self.record_incidents([])
        except INTERRUPTIONS:
            self.repair()  # before the traffic ends, because requests need live servers
            raise

    def do(self, step: Step) -> None:
        """Do a step, repair what it broke, and wait until nginx bans no server."""
        if step.do == "use":
            with self._recorded(Event(0.0, "use", method=step.target, weights=step.weights)):
                self._use(step.target, step.weights)
            self._claim = self._collector.add_current_claim()
        elif step.do == "reload":
            with self._recorded(Event(0.0, "reload")):
                faults.reload(self.lab)
        else:
            self._fault(step)
        wait_for(lambda: _answers(self.lab.door), 10, f"{self.lab.door} to answer")
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
        parameter = KINDS[step.do].value
        value = parameter.soak if parameter else None
        start = time.time()
        with self._recorded(Event(0.0, "fault", step.target, step.do, value)):
            faults.fault(self.lab, step.target, step.do, value)
        _sleep(step.seconds)
        self.record_incidents(self._timeline.done[-1:])
        repair = time.time()
        with self._recorded(Event(0.0, "heal")):
            faults.heal(self.lab)
        self._collector = replace(self._collector, states=states(self.lab))
        self._timeline.tenures += tenures(self.lab, start, repair)
        mark = nginx.log_size(self.lab)
        _sleep(FAIL_TIMEOUT + 1)
        window = Window(time.time(), None, self._claim, fresh=False, after=str(step))
        claim = upstream.read(self.lab.active / FIRST_CLAIM)

        def word(candidate: Window) -> Word:
            access = nginx.log_since(self.lab, mark)
            journals = compose.journals(self.lab, window.start - FAIL_TIMEOUT - 1, 0)
            return judge_so_far(claim, candidate, access, journals, self._timeline).word

        def send(slower: int) -> None:
            self.rate = self._full_rate / slower
            _sleep(1.05 * verdict.hits_needed(claim, QUIET) / self.rate)  # some come late

        try:
            self._timeline.windows += until_decided(window, send, word)
        finally:
            self.rate = self._full_rate

    def record_incidents(self, done: list[Done]) -> None:
        """Record what else than these events has changed a service since the last repair.

        The next repair would hide it. What is recorded is not compared again.
        """
        now, during = states(self.lab), Timeline(self._timeline.began, done=done)
        self._timeline.incidents += incidents(self._collector.states, now, during)
        self._collector = replace(self._collector, states=now)

    @contextmanager
    def _recorded(self, event: Event) -> Iterator[None]:
        """Record the event of a block in the timeline, with the block's beginning and end."""
        start = time.time() - self._timeline.began
        try:
            yield
        finally:
            end = time.time() - self._timeline.began
            self._timeline.done.append(Done(replace(event, at=start), start, end))

    def repair(self) -> None:
        """Repair what an interrupted step has broken."""
        start = time.time()
        with self._recorded(Event(0.0, "heal")):
            faults.heal(self.lab)
        self._timeline.tenures += tenures(self.lab, start, time.time())

    def collect(
        self,
        records: Sequence[Record],
        notes: Mapping[str, Any],
        *,
        interrupted: bool = False,
    ) -> Path:
        """Collect the logs of every side; return the run folder."""
        self._timeline.mended = time.time()
        answered = sum(not of_record(record).failed for record in records)
        return self._collector.collect(
            Sent(answered, tuple(records)),
            kind="soak",
            method="several",
            traffic=f"{self._full_rate:g} requests a second, mixed",
            notes=notes,
            interrupted=interrupted,
        )


def until_decided(
    window: Window, send: Callable[[int], None], word: Callable[[Window], Word]
) -> list[Window]:
    """Send until the requests since a window's start decide, or the latest ones by themselves do.

    Return the windows to judge. `word` judges a window; `send(slower)` returns when a stretch of
    requests has been sent, `slower` times slower than usual. On a quiet machine one stretch is
    enough. Where nginx's clock lags, because the machine is busy, more follow, at most STRETCHES;
    they are sent slowly, since a clock that lags leaves fewer picks open then.
    """
    windows: list[Window] = []
    begin = window.start
    for number in range(STRETCHES):
        send(SLOWER if number else 1)
        end = time.time()
        _sleep(LASTS)  # requests that began in the window have ended after it
        full, latest = replace(window, end=end), replace(window, start=begin, end=end)
        windows = [full] if latest == full else [full, replace(latest, again=True)]
        for judged, candidate in enumerate(windows, 1):
            if word(candidate) != Word.UNSURE:
                return windows[:judged]
        begin = end
    return windows


def _answers(door: str) -> bool:
    """Whether nginx answers at a door, so that the engine's port forwarding works."""
    try:
        with urllib.request.urlopen(f"{door}/nginx_status", timeout=5) as response:  # noqa: S310 - a lab's own http address
            return bool(response.status == 200)
    except OSError:
        return False


def _sleep(seconds: float) -> None:
    """Sleep while the traffic continues."""
    threading.Event().wait(seconds)


def memory(lab: Lab) -> dict[str, int]:
    """The memory of each service's processes in bytes, without the kernel's cache of files."""
    handles = [sdk.handle(container) for container in compose.containers(lab)]
    sizes = in_parallel(_memory_of, handles)  # the engine takes a second or two for each
    return dict(zip(map(compose.service, handles), sizes, strict=True))


def _memory_of(container: Container) -> int:
    stats: Any = container.stats(stream=False)
    parts = stats["memory_stats"].get("stats", {})
    return int(parts.get("anon", parts.get("rss", 0)))


@contextmanager
def traffic(base_url: str, seed: int, rate: Callable[[], float]) -> Iterator[list[Record]]:
    """Send GETs, POSTs and streams, `rate()` a second, until the block ends.

    The value is the list of their records, which is filled when the block has ended and every
    request has its response.
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
