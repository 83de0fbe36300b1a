"""Traffic through the lab door: ApacheBench from the load container, and clients of every kind."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from ..errors import LabError, UsageError
from ..stack import compose
from ..stack.compose import Lab
from ..stack.shell import run

if TYPE_CHECKING:
    from ..nginxconf.request import Request

INSIDE = "http://nginx:8081"  # the lab door, as the load container sees it
ANSWER_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Ab:
    """One ApacheBench call: `requests` in all, `concurrency` at a time."""

    requests: int = 1000
    concurrency: int = 10
    keepalive: bool = False
    path: str = "/"
    body: bytes | None = None
    content_type: str = "application/json"
    headers: tuple[str, ...] = ()


def ab(lab: Lab, call: Ab, base: str = INSIDE) -> str:
    """Run ApacheBench in the load container and return what it printed.

    Answers name their server and their time, so their lengths vary: ab gets -l. What ab
    printed is returned even when it gave up; `evidence.ab_report` reads its words.
    """
    _check(call)
    load = compose.container_id(lab, "load")
    words = ["ab", "-q", "-l", "-n", str(call.requests), "-c", str(call.concurrency)]
    words += ["-s", str(ANSWER_SECONDS), *(["-k"] if call.keepalive else [])]
    words += [word for header in call.headers for word in ("-H", header)]
    if call.body is not None:
        file = f"/tmp/{uuid.uuid4().hex}"  # noqa: S108 - the container's own tmpfs
        run(["docker", "exec", "-i", load, "sh", "-c", f"cat > {file}"], stdin=call.body)
        words += ["-p", file, "-T", call.content_type]
    done = run(["docker", "exec", load, *words, f"{base}{call.path}"], check=False, timeout=3600)
    return done.stdout + done.stderr


def _check(call: Ab) -> None:
    """Refuse what ab would refuse, in words that say what to change."""
    if not call.path.startswith("/"):
        raise UsageError(f'path "{call.path}"', "a path that begins with /")
    if call.requests < 1 or call.concurrency < 1:
        raise UsageError(f"-n {call.requests} -c {call.concurrency}", "numbers from 1")
    if call.concurrency > call.requests:
        raise UsageError(
            f"-c {call.concurrency} is more than -n {call.requests}",
            f"lab ab -n {call.concurrency} -c {call.concurrency}",
        )


def body_of(file: Path) -> bytes:
    """The content of a file to post."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{file}: {error.strerror}", "--post with a file that can be read"
        ) from None


# --- requests of every kind ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status 0 and `error` where nothing did."""

    status: int
    backend: str = ""
    request_id: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0


def send(
    base_url: str,
    requests: Sequence["Request"],
    concurrency: int = 1,
    sessions: Sequence[str] = (),
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Send every request once, `concurrency` at a time, and return the answers in their order.

    With a concurrency of 1 all go over one connection, each after the answer before it: nginx
    then sees them in exactly this order. `sessions`, if given, names the session of each request.
    """
    named = sessions or [""] * len(requests)
    return asyncio.run(_send(base_url, requests, named, concurrency, on_progress))


async def _send(
    base_url: str,
    requests: Sequence["Request"],
    sessions: Sequence[str],
    concurrency: int,
    on_progress: Callable[[int], None],
) -> list[Answer]:
    answers: list[Answer | None] = [None] * len(requests)
    waiting = iter(enumerate(requests))
    jars: dict[str, dict[str, str]] = {}
    connector = aiohttp.TCPConnector(limit=concurrency)
    limit = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(
        base_url, connector=connector, timeout=limit, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def work() -> None:
            for number, request in waiting:
                jar = jars.setdefault(name, {}) if (name := sessions[number]) else {}
                answers[number] = answer = await _one(session, request, jar)
                jar.update(answer.cookies)
                on_progress(number)

        await asyncio.gather(*(work() for _ in range(min(concurrency, len(requests)))))
    return [answer for answer in answers if answer is not None]


async def _one(
    session: aiohttp.ClientSession, request: "Request", cookies: Mapping[str, str]
) -> Answer:
    """Send one request; whatever goes wrong is part of the answer."""
    headers = {**request.headers, "X-Forwarded-For": request.client_ip}
    if cookies:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    started = time.monotonic()
    try:
        async with session.request(
            request.method,
            URL(request.uri, encoded=True),
            headers=headers,
            data=request.body or None,
        ) as response:
            await response.read()
            return Answer(
                status=response.status,
                backend=response.headers.get("X-Backend", ""),
                request_id=response.headers.get("X-Request-ID", ""),
                cookies={name: morsel.value for name, morsel in response.cookies.items()},
                seconds=time.monotonic() - started,
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        said = f"{type(error).__name__}: {error}"
        return Answer(0, error=said, seconds=time.monotonic() - started)


def refuse_failures(answers: Sequence[Answer]) -> None:
    """LabError where a request got no answer at all."""
    silent = [(number, answer) for number, answer in enumerate(answers, 1) if not answer.status]
    if silent:
        number, first = silent[0]
        lost = f"{len(silent):,} of {len(answers):,} requests got no answer"
        raise LabError(
            f"{lost}; request {number}: {first.error}",
            "lab status; docker compose logs nginx",
        )
