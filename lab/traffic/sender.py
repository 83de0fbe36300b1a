"""Send a plan through the lab door, each request at its time, and record the responses."""

import asyncio
import gc
import json
import os
import resource
import secrets
import selectors
import signal
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from types import FrameType
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from ..errors import UsageError
from ..evidence.record import Record
from ..nginxconf.request import Evaluator, Request
from ..signals import Terminated
from .events import EventStream, text_of
from .workload import Plan, Planned, User, call

T = TypeVar("T")
_READY = 256  # requests built before they are due: a burst finds them ready
_AT_ONCE = 8  # sockets read before the loop looks at its clock again: about 1 ms
_PROGRESS_EVERY = 0.2  # seconds
_SPARE_FILES = 128  # file descriptors left for the rest of this process
_BROKEN_OFF = {"truncated", "timeout", "cut"}


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run: `seconds` since its start, requests `sent`, `done`, `failed`, `open`.

    `total` is the maximum that the plan can send, None if only time ends it.
    """

    seconds: float
    sent: int
    done: int
    failed: int
    open: int
    total: int | None


OnProgress: TypeAlias = Callable[[Progress], None]
# Docker's port forwarding handled 3,500 connections; at 4,000 it ended, and the port stayed closed.
MOST_OPEN = 3_000


async def generate(
    plan: Plan,
    base_url: str,
    on_progress: OnProgress | None = None,
    *,
    timeout: float = 600.0,
    limit: float | None = None,
    cap: int = MOST_OPEN,
    run_id: str = "",
    records_so_far: list[Record] | None = None,
    key_of: Evaluator | None = None,
) -> list[Record]:
    """Send every request of `plan` to `base_url` when it is due; return the records, by number.

    Open loop: a request waits for its due time and, for a later turn, for its user's previous
    response, never for those of other users. `cap` is the maximum number of open requests, at most
    the number of files that this process may open; a request above it is recorded as "unsent".
    `timeout` is the limit of one request in seconds, `limit` that of the whole run; requests that
    are then open are aborted and recorded as "cut". Without a limit a run takes at most the plan's
    duration plus one timeout; without a duration, as long as its users' turns.

    Each request carries its client's address (X-Forwarded-For) and an id (X-Request-ID): 24 hex
    digits for the run (`run_id`, else drawn) and 8 for its number. Each user keeps its own cookies.
    `on_progress` is called five times a second and at the end. `records_so_far` gets each record as
    soon as its request has ended, for whoever cancels the run. `key_of` computes the hash key of a
    request, for its record. Raises UsageError for an invalid `base_url`.
    """
    _check_url(base_url)
    run = _Run(plan, base_url.rstrip("/"), min(cap, _connection_limit()), run_id)
    run.records = run.records if records_so_far is None else records_so_far
    run.key_of = key_of
    # a reload resets requests on connections that were idle: see docs/faults.md
    connector = aiohttp.TCPConnector(limit=0, force_close=not plan.keepalive)
    jar = aiohttp.DummyCookieJar()  # with a shared cookie jar, `sticky` would see one user
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=timeout)
    ) as session:
        session._retry_connection = False  # a request that is sent twice would have two fates
        with _freeze_gc(), _raise_priority(), suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await _with_progress(run, session, on_progress)
    if on_progress:
        on_progress(run.progress())
    return sorted(run.records, key=lambda record: record.number)


def run(
    plan: Plan, base_url: str, on_progress: OnProgress | None = None, **bounds: Any
) -> list[Record]:
    """Run `generate` from synchronous code, on an event loop with low latency."""
    with asyncio.Runner(loop_factory=_loop) as runner:
        return runner.run(cancelled_by_sigterm(generate(plan, base_url, on_progress, **bounds)))


async def cancelled_by_sigterm(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine; SIGTERM cancels it, then Terminated is raised, as Ctrl-C does by itself.

    asyncio swallows and logs an exception that a signal handler raises in one of its callbacks.
    """
    if threading.current_thread() is not threading.main_thread():
        return await work
    loop, task, signals = asyncio.get_running_loop(), asyncio.current_task(), []

    def cancel(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if task:
            loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if signals:
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _FairSelector(selectors.DefaultSelector):
    """Reports a few ready sockets at a time, in turn; the others are reported next.

    An event loop checks its clock once per iteration. When a stalled backend resumes and hundreds
    of streams have data, one iteration over all of them would delay requests that are due.
    """

    def __init__(self) -> None:
        super().__init__()
        self._turn = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        if len(ready) <= _AT_ONCE:
            return ready
        self._turn = (self._turn + _AT_ONCE) % len(ready)
        return (ready[self._turn :] + ready[: self._turn])[:_AT_ONCE]


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(_FairSelector())


def _check_url(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f'"{base_url}" is not a URL to send load to', "http://127.0.0.1:8081")


def _connection_limit() -> int:
    """The number of connections this process may open, after raising its limit to the maximum."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):  # some systems report a higher limit than they allow
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(1, soft - _SPARE_FILES)


@contextmanager
def _freeze_gc() -> Iterator[None]:
    """Exempt existing objects from garbage collection, which would pause the sender."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _raise_priority() -> Iterator[None]:
    """Raise this process's priority, where the system allows it (for root it does).

    On two busy cores an ordinary process waits tens of ms for the CPU: requests would be sent late,
    tokens would be recorded late, and both would look like delays of the backends.
    """
    try:
        # RESET_ON_FORK: a command started meanwhile is an ordinary process again
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (AttributeError, OSError):  # AttributeError: not Linux
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


async def _with_progress(
    run: "_Run", session: aiohttp.ClientSession, on_progress: OnProgress | None
) -> None:
    async with asyncio.TaskGroup() as group:
        ticker = group.create_task(_tick(run, on_progress)) if on_progress else None
        await run.send_all(session)
        if ticker:
            ticker.cancel()


async def _tick(run: "_Run", on_progress: OnProgress) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_EVERY)
        on_progress(run.progress())


async def _sleep_until(moment: float) -> None:
    """Sleep until `moment` on the monotonic clock; never wake early."""
    while (left := moment - time.monotonic()) > 0:
        await asyncio.sleep(left)


@dataclass(frozen=True, slots=True)
class _Job:
    """A request that is ready to be sent; `due` is in seconds after the run's start."""

    planned: Planned
    due: float
    id: str
    method: str
    url: URL
    headers: dict[str, str]
    body: bytes
    rest: Iterator[Planned]


class _Run:
    """The state of one run: its clock, what is open, what is recorded."""

    def __init__(self, plan: Plan, base_url: str, cap: int, run_id: str) -> None:
        self.plan = plan
        self.base_url = base_url
        self.cap = cap
        self.run_id = run_id or secrets.token_hex(12)
        self.records: list[Record] = []
        self.key_of: Evaluator | None = None
        self.cookies: dict[str, dict[str, str]] = {}
        self.open = self.sent = self.failed = 0
        self.start = time.monotonic()
        self.epoch = time.time() - self.start

    def progress(self) -> Progress:
        seconds = time.monotonic() - self.start
        done = len(self.records)
        return Progress(seconds, self.sent, done, self.failed, self.open, self.plan.total)

    async def send_all(self, session: aiohttp.ClientSession) -> None:
        """Start each user's task when its first request is due; return when all have ended."""
        jobs = (self._first_job(user) for user in self.plan.users)
        ready = deque(islice(jobs, _READY))
        self.start = time.monotonic()
        self.epoch = time.time() - self.start
        async with asyncio.TaskGroup() as group:
            while ready:
                job = ready.popleft()
                await _sleep_until(self.start + job.due)
                group.create_task(self._send_requests_of_user(session, job))
                if not ready or ready[0].due > time.monotonic() - self.start:
                    ready.extend(islice(jobs, min(2, _READY - len(ready))))

    def _first_job(self, user: User) -> _Job:
        return self._job(next(user.requests), user.due, user.requests)

    def _job(self, planned: Planned, due: float, rest: Iterator[Planned]) -> _Job:
        request = planned.request or call(planned)
        headers = {**request.headers, "X-Forwarded-For": request.client_ip}
        given_id = next((headers[name] for name in headers if name.lower() == "x-request-id"), "")
        request_id = given_id or f"{self.run_id}{planned.number:08x}"
        if not given_id:
            headers["X-Request-ID"] = request_id
        url = URL(self.base_url + request.uri, encoded=True)
        return _Job(planned, due, request_id, request.method, url, headers, request.body, rest)

    async def _send_requests_of_user(self, session: aiohttp.ClientSession, job: _Job) -> None:
        """Send all requests of one user, each after the response to the one before."""
        user_cookies: dict[str, str] = {}
        while True:
            visitor = job.planned.visitor
            cookies = self.cookies.setdefault(visitor, {}) if visitor else user_cookies
            record = await self._send_one(session, job, cookies)
            planned = next(job.rest, None)
            if planned is None:
                return
            pause = max(planned.due, self.plan.pause_after_failure if record.error else 0.0)
            due = time.monotonic() - self.start + pause
            if self.plan.duration is not None and due >= self.plan.duration:
                return
            job = self._job(planned, due, job.rest)
            await _sleep_until(self.start + due)

    async def _send_one(
        self, session: aiohttp.ClientSession, job: _Job, cookies: dict[str, str]
    ) -> Record:
        """Send one request, and record it however it ends."""
        answer = _Answer()
        if self.open >= self.cap:
            answer.fail("unsent", f"{self.open} requests were open")
            return self._record(job, answer)
        self.open += 1
        self.sent += 1
        answer.sent = time.monotonic()
        try:
            await self._exchange(session, job, cookies, answer)
        except asyncio.CancelledError:
            answer.fail("cut", "the run was over")
            raise
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            answer.fail(_kind(error, answer.status), f"{type(error).__name__}: {error}")
        finally:
            answer.end = time.monotonic()
            self.open -= 1
            record = self._record(job, answer)
        return record

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        job: _Job,
        cookies: dict[str, str],
        answer: "_Answer",
    ) -> None:
        headers = job.headers
        if cookies:
            pairs = [headers["Cookie"]] if "Cookie" in headers else []
            pairs += [f"{name}={value}" for name, value in cookies.items()]
            headers = {**headers, "Cookie": "; ".join(pairs)}
        async with session.request(
            job.method, job.url, data=job.body or None, headers=headers, allow_redirects=False
        ) as response:
            answer.status = response.status
            answer.backend = response.headers.get("X-Backend", "")
            answer.upstream = response.headers.get("X-Upstream", "")
            if self.key_of:
                answer.key = key_sent(self.key_of, response.request_info, job)
            cookies.update((name, morsel.value) for name, morsel in response.cookies.items())
            await _read(response, job.planned, answer)

    def _record(self, job: _Job, answer: "_Answer") -> Record:
        def epoch(moment: float | None) -> float | None:
            return None if moment is None else moment + self.epoch

        stream, planned = answer.stream, job.planned
        times = tuple(self.epoch + moment for moment in stream.times)
        usage = stream.usage or answer.usage
        complete = stream.done if planned.stream else answer.error not in _BROKEN_OFF
        record = Record(
            number=planned.number,
            id=job.id,
            due=self.epoch + self.start + job.due,
            sent=epoch(answer.sent),
            first_token=times[0] if times else None,
            token_times=times,
            end=epoch(answer.end),
            tokens=len(times) if planned.stream else answer.tokens,
            completion_tokens=_count(usage, "completion_tokens"),
            prompt_tokens=_count(usage, "prompt_tokens"),
            cached_tokens=_cached(usage),
            status=answer.status,
            error=answer.error,
            detail=answer.detail,
            backend=answer.backend,
            upstream=answer.upstream,
            truncated=answer.status == 200 and not complete,
            stream=planned.stream,
            max_tokens=planned.max_tokens,
            client_ip=planned.client_ip,
            tenant=planned.tenant,
            session=planned.session,
            turn=planned.turn,
            method=job.method,
            key=answer.key,
        )
        self.records.append(record)
        self.failed += bool(record.error)
        return record


def key_sent(key_of: Evaluator, sent: aiohttp.RequestInfo, job: _Job) -> str | None:
    """The hash key of a request with the headers that were sent, one character for each byte.

    None if it cannot be computed.
    """
    uri, address = sent.url.raw_path_qs, job.planned.client_ip
    try:
        key = key_of(Request(uri, address, sent.method, sent.headers, job.body))
    except UsageError:
        return None
    return key.decode("latin-1")  # a key may be cut within a character


async def _read(response: aiohttp.ClientResponse, planned: Planned, answer: "_Answer") -> None:
    """Read the body in the way that the planned request needs."""
    plain = planned.request is not None
    if response.status >= 400 or (response.status != 200 and not plain):
        text = (await response.read()).decode(errors="replace")
        answer.fail(f"http_{response.status // 100}xx", f"{response.status} {text}")
    elif planned.stream:
        await _read_stream(response.content, answer.stream)
        answer.judge(answer.stream)
    elif not plain:
        answer.usage = _usage(json.loads(await response.read()))
        answer.tokens = _count(answer.usage, "completion_tokens")
    elif response.content_type == "application/json":
        json.loads(await response.read())  # ValueError: malformed
    else:
        await response.read()


@dataclass(slots=True)
class _Stream:
    """A streamed answer: the time of each token, and how it ended."""

    events: EventStream = field(default_factory=EventStream)
    times: "array[float]" = field(default_factory=lambda: array("d"))
    usage: dict[str, Any] = field(default_factory=dict)
    malformed: str = ""
    failure: str = ""

    @property
    def done(self) -> bool:
        """Whether [DONE] has come."""
        return self.events.done

    def feed(self, data: bytes, now: float) -> None:
        """Process the data of one read; an incomplete event waits for more data."""
        for payload in self.events.feed(data):
            try:
                event = json.loads(payload)
                if text_of(event):
                    self.times.append(now)
                self.usage = dict(event.get("usage") or self.usage)
                self.failure = self.failure or str(event.get("error") or "")
            except (ValueError, TypeError, AttributeError, RecursionError):
                self.malformed = self.malformed or repr(payload[:100])


async def _read_stream(content: aiohttp.StreamReader, stream: _Stream) -> None:
    while data := await content.readany():
        stream.feed(data, time.monotonic())


@dataclass(slots=True)
class _Answer:
    """The state of one response; times are on the monotonic clock."""

    stream: _Stream = field(default_factory=_Stream)
    usage: dict[str, Any] = field(default_factory=dict)
    tokens: int | None = 0
    sent: float | None = None
    end: float | None = None
    status: int | None = None
    error: str = ""
    detail: str = ""
    backend: str = ""
    upstream: str = ""
    key: str | None = None

    def fail(self, kind: str, detail: str) -> None:
        self.error = kind
        self.detail = " ".join(detail.split())[:500]

    def judge(self, stream: _Stream) -> None:
        """Set the error of a stream that ended correctly at the HTTP level."""
        if stream.failure:
            self.fail("stream_error", stream.failure)
        elif stream.malformed:
            self.fail("malformed", stream.malformed)
        elif not stream.done:
            self.fail("truncated", f"no [DONE] after {len(stream.times)} tokens")


def _kind(error: Exception, status: int | None) -> str:
    """The kind of an error; a status means that the response had begun."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connect"
    if isinstance(error, (aiohttp.ClientResponseError, ValueError, RecursionError)):
        return "malformed"
    return "reset" if status is None else "truncated"


def _usage(answer: Any) -> dict[str, Any]:
    """The `usage` of an answer that was not streamed. Raises ValueError for other content."""
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        raise ValueError("not a completion")  # noqa: TRY004 - the type of data, not of code
    usage = answer.get("usage")
    return usage if isinstance(usage, dict) else {}


def _count(usage: dict[str, Any], key: str) -> int | None:
    value = usage.get(key)
    return value if isinstance(value, int) else None


def _cached(usage: dict[str, Any]) -> int | None:
    details = usage.get("prompt_tokens_details")
    return _count(details, "cached_tokens") if isinstance(details, dict) else None
