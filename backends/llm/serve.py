"""Two servers in one process: the backend's port and its behaviour port."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .app import App, Backend, backend
from .behaviour import HEALTHY
from .control import control
from .protocol import Protocol
from .settings import Settings, SettingsError

_BACKLOG = 2048
# only processes in the backend's container may set faults: no client, not nginx
_LOOPBACK = "127.0.0.1"


class _Server(uvicorn.Server):
    """A uvicorn server without signal handlers of its own."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override] # uvicorn's is a generator's context manager, which is one
        return contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Service:
    """A backend with its two servers and the sockets that they listen on."""

    lab: Backend
    main: uvicorn.Server
    panel: uvicorn.Server
    main_socket: socket.socket
    panel_socket: socket.socket

    async def run(self) -> None:
        """Serve until `stop`, then finish open requests within the settings' grace period."""
        panel = asyncio.create_task(self.panel.serve([self.panel_socket]))
        await self.main.serve([self.main_socket])
        self.panel.should_exit = True
        await panel
        self.lab.journal.flush()

    def stop(self) -> None:
        """Stop accepting connections, and release requests that a fault holds."""
        self.lab.switch.set(HEALTHY)
        self.main.should_exit = True


def service(settings: Settings, write: Callable[[str], object]) -> Service:
    """Bind both ports and create the servers; raises SettingsError for a port that is taken."""
    lab = backend(settings, write)
    sockets = [
        _bind("PORT", settings.host, settings.port),
        _bind("BEHAVIOUR_PORT", _LOOPBACK, settings.behaviour_port),
    ]
    main = _server(App(lab), settings, Protocol)
    return Service(lab, main, _server(control(lab), settings, HttpToolsProtocol), *sockets)


def _bind(variable: str, host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f'{variable}="{port}": {reason}') from None


def _server(app: ASGIApp, settings: Settings, protocol: type[asyncio.Protocol]) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=settings.grace,
    )
    return _Server(config)


async def _serve(settings: Settings) -> None:
    running = service(settings, _to_stdout)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.stop)
    _print_line(
        f"{settings.name}: port {settings.port}, behaviours on {settings.behaviour_port}, "
        f"profile {settings.profile.name}"
    )
    await running.run()


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print_line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(settings: Settings) -> None:
    """Run a backend until SIGTERM or SIGINT."""
    # a request that cannot be parsed is answered and journalled; it needs no warning
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))
