"""A backend on loopback ports of its own, in a thread of this process."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from typing import Any

import requests
import uvloop

from nginx_llm_lab.backends.llm.behaviour import HEALTHY
from nginx_llm_lab.backends.llm.serve import Service, service
from nginx_llm_lab.backends.llm.settings import Settings


class Http:
    """requests with a deadline: half a minute."""

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """Ask and wait."""
        timeout = options.pop("timeout", 30)
        return requests.request(method, url, timeout=timeout, **options)

    def __getattr__(self, method: str) -> Callable[..., requests.Response]:
        return partial(self.request, method.upper())


http = Http()


@dataclass(slots=True)
class Running:
    """A backend that serves: its two addresses, and what it wrote on stdout."""

    url: str
    panel: str
    service: Service
    loop: asyncio.AbstractEventLoop
    written: list[str] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    @property
    def port(self) -> int:
        """The port of its APIs."""
        return int(self.url.rsplit(":", 1)[1])

    def write(self, text: str) -> None:
        """Take lines of the journal."""
        with self.news:
            self.written.append(text)
            self.news.notify_all()

    def begin(self, path: str, body: object) -> HTTPConnection:
        """POST, and return when the first byte of the answer is there; `close` hangs up."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", path, json.dumps(body))
        connection.getresponse().read(1)
        return connection

    def reset(self) -> None:
        """Heal, let every connection end, and forget what was written."""
        asyncio.run_coroutine_threadsafe(self._idle(), self.loop).result(20)
        self.written.clear()

    async def _idle(self) -> None:
        self.service.lab.switch.set(HEALTHY)
        while self.service.main.server_state.connections:
            await asyncio.sleep(0.001)
        # the journal's last write is due in this turn
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def lines(self, count: int) -> list[dict[str, Any]]:
        """Wait for that many lines of the journal."""

        def found() -> list[str]:
            return "".join(self.written).splitlines()

        with self.news:
            assert self.news.wait_for(lambda: len(found()) >= count, timeout=10), found()
        return [json.loads(line) for line in found()]


def serve(settings: Settings) -> Iterator[Running]:
    """Run a backend in a thread."""
    ready = threading.Event()
    made: list[Running] = []
    loop = uvloop.new_event_loop()

    async def run() -> None:
        running = Running("", "", service(settings, lambda text: made[0].write(text)), loop)
        for name, sock in (("url", "main_socket"), ("panel", "panel_socket")):
            port = getattr(running.service, sock).getsockname()[1]
            setattr(running, name, f"http://127.0.0.1:{port}")
        made.append(running)
        ready.set()
        await running.service.run()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(10)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(made[0].service.stop)
        thread.join(20)
        assert not thread.is_alive()
