"""Break a lab again and again under traffic, and account for every request."""

import asyncio
import json
import random
import secrets
import threading
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp
from docker.models.containers import Container

from .. import verdict
from ..accounts.fates import Call, Fault, Ledger, Rules, account, losable, named_by_tenure
from ..evidence import access_log, journal
from ..experiment import fleet
from ..nginxconf import upstream
from ..stack import compose, faults, nginx
from ..stack.compose import Lab
from ..verdict import Verdict, replay
from .collect import logs, tenures

if TYPE_CHECKING:
    from ..nginxconf.model import Upstream

RATE = 300.0  # requests a second
OPEN = 400  # requests at once: the engine's port forwarding takes six descriptors for each
ANSWER_SECONDS = 60.0
FAIL_TIMEOUT = 1  # seconds: a ban that outlasts the next fault would leave nobody to answer
QUIET = 700  # requests without a fault, by which a recovery is judged; draws take more
LASTS = 0.3  # seconds that the longest requests last: see `_ask`
SLACK = 32 << 20  # bytes that a container may hold more of after a soak and count as flat

SWITCHES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("round_robin", ()),
    ("round_robin", (3, 2, 1)),
    ("least_conn", ()),
    ("hash", ()),
    ("hash_consistent", ()),
    ("ip_hash", ()),
    ("random", ()),
)
NGINX_FAULTS = ("kill", "restart", "pause")
VALUES: Mapping[str, float] = {"slow": 4.0, "error_rate": 0.5, "drop": 1.0}


@dataclass(frozen=True, slots=True)
class Step:
    """Something done to the lab: a fault held for `seconds` and mended, a switch, or a reload.

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
    kinds = [*faults.ACTIONS, *faults.PLAYED]
    while True:
        roll = dice.random()
        if roll < 0.15:
            yield Step("reload")
        elif roll < 0.30:
            yield _switch(dice, len(backends))
        elif roll < 0.35:
            yield Step(dice.choice(NGINX_FAULTS), faults.NGINX, dice.uniform(0.2, 1.0))
        elif roll < 0.40:
            yield Step(dice.choice(("kill", "pause", "cut")), faults.ALL, dice.uniform(0.2, 1.0))
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


@dataclass(frozen=True, slots=True)
class Recovery:
    """How the split looked from `fail_timeout` + 1 s after a mend on, against the prediction."""

    step: Step
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Report:
    """What a soak came to; memory is bytes by service, before and after."""

    seed: int
    seconds: float
    steps: tuple[Step, ...]
    ledger: Ledger
    recoveries: tuple[Recovery, ...]
    before: Mapping[str, int]
    after: Mapping[str, int]

    @property
    def astray(self) -> tuple[Recovery, ...]:
        """The faults after which the split was not seen to return to the prediction."""
        return tuple(each for each in self.recoveries if each.verdict.word != "PASS")

    @property
    def growing(self) -> tuple[str, ...]:
        """The services whose memory is not flat."""
        return tuple(
            name for name, was in self.before.items() if self.after.get(name, 0) > was + SLACK
        )

    @property
    def holds(self) -> bool:
        """Whether every fate is explained, every split came back, and memory is flat."""
        return self.ledger.holds and not self.astray and not self.growing

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            **self.ledger.as_dict(),
            "holds": self.holds,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "steps": [str(step) for step in self.steps],
            "recoveries": len(self.recoveries),
            "astray": [f"{each.step}: {each.verdict}" for each in self.astray],
            "memory": {name: [was, self.after.get(name, 0)] for name, was in self.before.items()},
        }

    def __str__(self) -> str:
        word = "PASS" if self.holds else "FAIL"
        did: dict[str, int] = {}
        for step in self.steps:
            did[step.do] = did.get(step.do, 0) + 1
        memory = ", ".join(
            f"{name} {was / 1e6:.1f} → {self.after.get(name, 0) / 1e6:.1f} MB"
            for name, was in self.before.items()
        )
        back = len(self.recoveries) - len(self.astray)
        astray = [f"  astray after {each.step}: {each.verdict}" for each in self.astray]
        return "\n".join(
            [
                f"{word}  soak of {self.seconds:.0f} s, seed {self.seed}",
                "  " + ", ".join(f"{number} {what}" for what, number in sorted(did.items())),
                str(self.ledger),
                f"  {back} of {len(self.recoveries)} splits back within fail_timeout + 1 s",
                *astray,
                f"  memory: {memory}",
            ]
        )


def soak(
    lab: Lab,
    seconds: float = 600.0,
    seed: int | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
    *,
    planned: Iterable[Step] | None = None,
    rate: float = RATE,
    next_upstream: str = "",
) -> Report:
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
        run.switch("round_robin", ())
        with traffic(lab.door, seed, rate) as run.calls:
            for step in steps(seed, run.backends) if planned is None else planned:
                if time.time() - began > seconds:
                    break
                on_progress(f"{time.time() - began:6.1f} s  {step}")
                run.do(step)
    finally:
        faults.heal(lab)
    return run.report(seed, began, before)


class _Run:
    """A soak under way: what was done, when, and what nginx knew."""

    def __init__(self, lab: Lab, next_upstream: str, rate: float) -> None:
        self.lab = lab
        self.calls: list[Call] = []
        self.backends = [compose.service(each) for each in compose.backend_containers(lab)]
        self._next_upstream = next_upstream
        self._mark = nginx.log_size(lab)
        self._began = time.time()
        self._claim = upstream.read(lab.active / "upstream.conf")
        self._tenures = list(tenures(lab, self._began, self._began))
        self._timeline: list[Fault] = []
        self._done: list[Step] = []
        self._rate = rate
        self._quiet: list[tuple[Step, Upstream, float, float]] = []

    def do(self, step: Step) -> None:
        """Do a step, undo it, and wait until its bans are over."""
        if step.do == "use":
            self.switch(step.target, step.weights)
        elif step.do == "reload":
            faults.reload(self.lab)
        else:
            self._fault(step)
        nginx.wait_for(lambda: _answers(self.lab.door), 10, f"{self.lab.door} to answer")
        self._done.append(step)

    def switch(self, method: str, weights: tuple[int, ...]) -> None:
        """Have nginx balance by another method."""
        choice = fleet.choose(
            self.lab,
            method,
            weights=weights,
            parameters={"": f"max_fails=1 fail_timeout={FAIL_TIMEOUT}s"},
            next_upstream=self._next_upstream,
        )
        fleet.use(self.lab, choice)
        self._claim = upstream.read(self.lab.active / "upstream.conf")

    def _fault(self, step: Step) -> None:
        start = time.time()
        faults.fault(self.lab, step.target, step.do, VALUES.get(step.do))
        _pass(step.seconds)
        mending = time.time()
        faults.heal(self.lab)
        mended = time.time()
        self._timeline.append(Fault(step.target, step.do, start, mended))
        self._tenures += tenures(self.lab, start, mending)
        _pass(FAIL_TIMEOUT + 1)
        quiet = time.time()
        _pass(1.05 * verdict.hits_to_tell(self._claim, QUIET) / self._rate)  # some come late
        self._quiet.append((step, self._claim, quiet, time.time()))
        _pass(LASTS)  # what began in quiet ends in quiet

    def report(self, seed: int, began: float, before: Mapping[str, int]) -> Report:
        """Collect what every side logged, and account for it."""
        seconds = time.time() - began
        answered = sum(not call.failed for call in self.calls)
        lost = losable(self.calls, self._timeline)
        access, lines = logs(self.lab, self._mark, self._began, answered, lost)
        log = access_log.read(access.splitlines())
        ours = {call.id for call in self.calls}
        entries = [entry for entry in journal.read(lines.splitlines()).entries if entry.id in ours]
        hits = list(named_by_tenure([*log.hits, *log.unproxied], self._tenures))
        rules = Rules(self.backends, FAIL_TIMEOUT, "non_idempotent" in self._next_upstream)
        return Report(
            seed,
            seconds,
            tuple(self._done),
            account(self.calls, hits, entries, self._timeline, rules),
            tuple(self._recoveries([hit for hit in hits if isinstance(hit, access_log.Hit)])),
            before,
            memory(self.lab),
        )

    def _recoveries(self, hits: Sequence[access_log.Hit]) -> Iterator[Recovery]:
        """Judge the quiet traffic after each fault."""
        ported = {name: f"{name}:{compose.BACKEND_PORT}" for name in self.backends}
        by_time = sorted(access_log.named(hits, ported), key=replay.start)
        begun = [replay.start(hit) for hit in by_time]
        for step, claim, start, end in self._quiet:
            from_, to = bisect_left(begun, start - ANSWER_SECONDS), bisect_left(begun, end)
            near = [hit for hit in by_time[from_:to] if hit.msec >= start - 1]
            said = verdict.judge(claim, near, sequential=False, fresh=False, since=start)
            yield Recovery(step, said)


def _answers(door: str) -> bool:
    """Whether nginx itself answers at a door: the engine's port forwarding is in no fault."""
    try:
        with urllib.request.urlopen(f"{door}/nginx_status", timeout=5) as response:  # noqa: S310 - a lab's own http address
            return bool(response.status == 200)
    except OSError:
        return False


def _pass(seconds: float) -> None:
    """Let traffic go on for a while: the length of a fault is its own, not a wait for something."""
    threading.Event().wait(seconds)


def memory(lab: Lab) -> dict[str, int]:
    """The bytes that each service's processes hold, without what the kernel caches of files."""
    found = compose.containers(lab)
    with ThreadPoolExecutor(len(found)) as pool:  # the engine takes a second or two for each
        return dict(zip(map(compose.service, found), pool.map(_held, found), strict=True))


def _held(container: Container) -> int:
    stats: Any = container.stats(stream=False)
    parts = stats["memory_stats"].get("stats", {})
    return int(parts.get("anon", parts.get("rss", 0)))


# --- traffic ------------------------------------------------------------------------------


@contextmanager
def traffic(base_url: str, seed: int, rate: float = RATE) -> Iterator[list[Call]]:
    """Send GETs, POSTs and streams, `rate` a second, until the block ends; a Call for each.

    The calls are whole when the block has ended: by then every request has its answer.
    """
    calls: list[Call] = []
    over = threading.Event()
    work = _drive(base_url, random.Random(seed), rate, over, calls)
    thread = threading.Thread(target=asyncio.run, args=(work,))
    thread.start()
    try:
        yield calls
    finally:
        over.set()
        thread.join()


async def _drive(
    base_url: str, dice: random.Random, rate: float, over: threading.Event, calls: list[Call]
) -> None:
    """Open loop: a late answer delays no other request, until OPEN of them are late."""
    run = secrets.token_hex(8)
    room = asyncio.Semaphore(OPEN)
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    # a reload resets whoever asks on a connection that was idle for keepalive_min_timeout
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(base_url, connector=connector, timeout=limit) as session:
        session._retry_connection = False  # a request that is sent twice has two fates
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in count():
                if over.is_set():
                    break
                ask = _ask(dice, f"{run}{number:08x}")
                await room.acquire()
                group.create_task(_call(session, ask, calls)).add_done_callback(
                    lambda _: room.release()
                )
                if (early := began + number / rate - time.monotonic()) > 0:
                    await asyncio.sleep(early)


@dataclass(frozen=True, slots=True)
class _Ask:
    """One request to send."""

    id: str
    method: str
    path: str
    headers: Mapping[str, str]
    content: Mapping[str, Any] | None = None
    kind: str = field(default="")


def _ask(dice: random.Random, id_: str) -> _Ask:
    """A request drawn by the dice: GET, POST or stream, some of which last."""
    client = f"10.{dice.randrange(256)}.{dice.randrange(256)}.{dice.randrange(1, 255)}"
    lasts = {"X-Lab-Duration": f"{dice.uniform(0.01, 0.1):.3f}"} if dice.random() < 0.2 else {}
    headers = {"X-Request-ID": id_, "X-Forwarded-For": client, **lasts}
    kind = dice.choices(("GET", "POST", "stream"), (6, 3, 1))[0]
    if kind == "GET":
        return _Ask(id_, "GET", f"/soak/{dice.randrange(1000)}", headers)
    if kind == "POST":
        return _Ask(id_, "POST", "/chat", headers, {"message": f"soak {id_}"}, kind)
    message = {"role": "user", "content": "soak " * dice.randrange(1, 20)}
    content = {"model": "lab-llm", "messages": [message], "stream": True, "max_tokens": 20}
    return _Ask(id_, "POST", "/v1/chat/completions", headers, content, kind)


async def _call(session: aiohttp.ClientSession, ask: _Ask, calls: list[Call]) -> None:
    """Send one request; whatever goes wrong is written down with it."""
    sent = time.time()
    status, error = 0, ""
    try:
        async with session.request(
            ask.method, ask.path, headers=ask.headers, json=ask.content
        ) as response:
            status = response.status
            error = _flaw(ask.kind, await response.read()) if status == 200 else ""
    except TimeoutError:
        error = "timeout"
    except aiohttp.ClientConnectorError:
        error = "connect"
    except aiohttp.ClientPayloadError:
        error = "truncated"
    except (aiohttp.ClientError, OSError):
        error = "reset"
    calls.append(Call(ask.id, ask.method, sent, time.time(), status, error, ask.kind == "stream"))


def _flaw(kind: str, body: bytes) -> str:
    """What is wrong with an answer of status 200; "" if nothing."""
    texts = [body] if kind == "POST" else []
    if kind == "stream":
        events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event]
        if not events or events[-1] != b"[DONE]":
            return "truncated"
        texts = events[:-1]
    try:
        for text in texts:
            json.loads(text)
    except ValueError:
        return "malformed"
    return ""
