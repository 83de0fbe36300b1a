"""Measure a backend against its own model: python -m tests.backends.agreement [PROFILE …].

Starts a backend, sends 1, 8 and 64 streams at once, and compares each stream's time to first token
and mean time between tokens with what the engine says for the very same arrivals.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import cast
from urllib.request import urlopen

import uvloop

from nginx_llm_lab.backends.llm.engine import Engine, Request
from nginx_llm_lab.backends.llm.openai import text
from nginx_llm_lab.backends.llm.openai.call import parse_chat
from nginx_llm_lab.backends.llm.profiles import PROFILES, Profile

BACKENDS = Path(__file__).parents[2] / "backends"
PROMPT_WORDS = 254  # 256 tokens with the marks of the turns
OUTPUT_TOKENS = 48
_EVENT = b'"finish_reason":null'


@dataclass(frozen=True, slots=True)
class Stream:
    """When a request was sent and its tokens came, in seconds."""

    sent: float
    tokens: tuple[float, ...]

    @property
    def ttft(self) -> float:
        """Time to first token."""
        return self.tokens[0] - self.sent

    @property
    def itl(self) -> float:
        """Mean time between tokens."""
        return (self.tokens[-1] - self.tokens[0]) / (len(self.tokens) - 1)


def body(number: int) -> dict[str, object]:
    """A call of its own prompt, 256 tokens long, answered with exactly 48 tokens."""
    content = " ".join([f"p{os.getpid()}", str(number), *["word"] * (PROMPT_WORDS - 2)])
    return {
        "model": "lab-llm",
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "ignore_eos": True,
        "max_tokens": OUTPUT_TOKENS,
    }


class Client(asyncio.Protocol):
    """Sends one request and notes the moment of every token event."""

    def __init__(self, number: int) -> None:
        content = json.dumps(body(number)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: lab\r\nContent-Length: {len(content)}"
        self.request = head.encode() + b"\r\n\r\n" + content
        self.times: list[float] = []
        self.sent = 0.0
        self.done: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection for `send`."""
        # uvloop's transports do not descend from asyncio's
        self.transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Send the request now."""
        self.sent = time.perf_counter()
        if self.transport:
            self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Count the events that ended in this piece; the first is the role's."""
        now = time.perf_counter()
        seen = (self.tail + data).count(_EVENT) - self.tail.count(_EVENT)
        self.times += [now] * seen
        self.tail = data[-len(_EVENT) :]
        if b"[DONE]" in data and not self.done.done():
            self.done.set_result(Stream(self.sent, tuple(self.times[1:])))


async def measured(port: int, streams: int, first: int) -> list[Stream]:
    """Send so many streams at once."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for number in range(streams):
        client = Client(first + number)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc] # a default binds the loop's value
        clients.append(client)
    for client in clients:
        client.send()
    async with asyncio.timeout(120):
        return [await client.done for client in clients]


def modelled(profile: Profile, streams: list[Stream]) -> list[Stream]:
    """What the engine says for the same arrivals."""
    prompt = parse_chat(body(0), "lab-llm", 1024).prompts[0]
    engine = Engine(profile)
    arrivals = sorted(streams, key=lambda each: each.sent)
    times: dict[object, list[float]] = {}
    for stream in arrivals:
        request = Request(len(prompt), OUTPUT_TOKENS, text.blocks(prompt[:0]))
        times[engine.submit(stream.sent, request)] = []
    while engine.next_due() is not None:
        for token in engine.step().tokens():
            times[token.generation].append(token.at)
    return [
        Stream(stream.sent, tuple(tokens))
        for stream, tokens in zip(arrivals, times.values(), strict=True)
    ]


def report(profile: Profile, streams: list[Stream]) -> str:
    """One line: measured and modelled medians and means, in ms, and the worst stream's error."""
    model = modelled(profile, streams)
    cells = [f"{profile.name:10} {len(streams):4}"]
    pairs = list(zip(sorted(streams, key=lambda each: each.sent), model, strict=True))
    for name in ("ttft", "itl"):
        measured_ms = [1000 * getattr(stream, name) for stream, _ in pairs]
        model_ms = [1000 * getattr(stream, name) for _, stream in pairs]
        allowed = [0.05 * ms + 2 for ms in model_ms]
        beyond = sum(abs(a - b) > c for a, b, c in zip(measured_ms, model_ms, allowed, strict=True))
        cells.append(
            f"{name} {median(measured_ms):8.2f} / {median(model_ms):8.2f} ms  "
            f"mean {fmean(measured_ms):8.2f} / {fmean(model_ms):8.2f}  "
            f"beyond 5 % + 2 ms: {beyond:2}"
        )
    return "  ".join(cells)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def healthy(port: int) -> bool:
    """Whether the backend answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def compare(port: int, profile: Profile) -> None:
    """Print a line for each number of streams."""
    first = 0
    for streams in (1, 1, 8, 64):
        answered = await measured(port, streams, first)
        first += streams
        print(report(profile, answered), flush=True)  # noqa: T201 - a report for people


def main(names: list[str]) -> None:
    """Measure the named profiles, or three."""
    for name in names or ["h100-8b", "l40s-8b", "slow-8b"]:
        port, panel = free_port(), free_port()
        variables = {"PROFILE": name, "PORT": str(port), "BEHAVIOUR_PORT": str(panel)}
        environment = {**os.environ, **variables, "HOST": "127.0.0.1", "BACKEND_NAME": "backend-1"}
        backend = subprocess.Popen(
            [sys.executable, "-m", "llm"], cwd=BACKENDS, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 20
            while not healthy(port) and time.monotonic() < deadline:
                backend.poll()
            uvloop.run(compare(port, PROFILES[name]))
        finally:
            backend.terminate()
            backend.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
