"""Start the containers of nginx and of the stub backends, and connect them without a network.

Every container exits after LIFE seconds, even if this process was killed.
"""

import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container
from docker.types import DriverConfig, Mount

from ...errors import LabError
from ...paths import SETUP
from ...stack import compose
from ...stack.sdk import engine
from ...stack.shell import poll, run
from ..survey import DNS_PORT
from ..survey.environment import Endpoint, Environment
from . import stub, veth
from .nginx_container import LIFE, NAME_SERVER, NGINX_USER, NginxContainer
from .veth import Address

LABEL = "nginx-llm-lab.verify"
IMAGES = {"nginx": "nginx", "backend": "backend-1", "load": "load"}  # by the service that has it
# Default response times of the stub backends. least_time rounds to 20 ms: these are in the middle
# of a step, and so far apart that a step more or less changes no order.
PACES = 0.01, 0.03, 0.05
START_SECONDS = 15
SOCKETS = "/nginx-llm-lab"  # the stub backends' unix sockets, in a folder of both containers


class Containers:
    """The containers of one sandbox.

    `near` has nginx's network namespace and the stub backends in it; `far` those whose addresses
    nginx reaches by veth pairs, if there are any.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.id = uuid.uuid4().hex[:12]
        self.engine = engine()
        self.images = {name: compose.image(service) for name, service in IMAGES.items()}
        sockets = (endpoint.socket for endpoint in environment.endpoints if endpoint.socket)
        self.sockets = {path: f"{SOCKETS}/{number}.sock" for number, path in enumerate(sockets)}

    def start(self) -> None:
        """Start all containers, and return when every stub backend listens."""
        for image in self.images.values():
            present(self.engine, image)
        near = [endpoint for endpoint in self.environment.endpoints if endpoint.near]
        far = [endpoint for endpoint in self.environment.endpoints if not endpoint.near]
        name_servers = (*self.environment.dns, (NAME_SERVER, DNS_PORT))
        # the engine takes most of the time; leaving the block waits for what it has begun
        with ThreadPoolExecutor() as pool:
            starting = pool.submit(self._start_stubs, far, ()) if far else None
            self.near = self._start_stubs(near, name_servers)
            nginx = pool.submit(self._start_nginx)
            self.far = starting.result() if starting else None
            self._connect()
            self.nginx = NginxContainer(nginx.result())
        for stubs in self.stubs:
            await_stubs(stubs)

    def clear(self) -> None:
        """Remove every container of this sandbox."""
        mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={self.id}"}
        for container in self.engine.containers.list(all=True, filters=mine, ignore_removed=True):
            try:
                container.remove(force=True, v=True)
            except (docker.errors.NotFound, docker.errors.APIError) as error:
                if error.status_code not in (404, 409):  # already removed, or being removed
                    raise

    @property
    def stubs(self) -> list[Container]:
        """The containers with stub backends."""
        return [container for container in (self.near, self.far) if container is not None]

    def add_addresses(self, addresses: Sequence[str]) -> None:
        """Give nginx's namespace more addresses of its own."""
        self._network(self.near, [Address("lo", address) for address in addresses])

    def _start(self, image: str, command: Sequence[str], **more: Any) -> Container:
        """Start one hardened container, which is removed when it exits."""
        try:
            return self.engine.containers.run(
                image,
                entrypoint=list(command),
                command=[],
                detach=True,
                auto_remove=True,
                labels={LABEL: self.id},
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                mem_limit="512m",
                pids_limit=256,
                cpu_period=100_000,
                cpu_quota=200_000,
                **more,
            )
        except docker.errors.APIError as error:
            raise LabError(f"the engine refused a container: {error.explanation}") from None

    def _start_nginx(self) -> Container:
        """Start nginx's container, still without nginx, in the network of the near stubs."""
        return self._start(
            self.images["nginx"],
            ["sleep", str(LIFE)],
            network_mode=f"container:{self.near.id}",
            volumes_from=[str(self.near.id)] if self.sockets else [],
            user=f"{NGINX_USER}:{NGINX_USER}",
            init=True,
        )

    def _start_stubs(
        self, endpoints: Sequence[Endpoint], dns: Sequence[tuple[str, int]]
    ) -> Container:
        """Start a container without a network, with a stub backend for every endpoint."""
        plan = {
            "endpoints": [
                [
                    str(endpoint),
                    self.sockets.get(endpoint.socket, endpoint.host),
                    endpoint.port,
                    endpoint.tls,
                    PACES[number % len(PACES)],
                ]
                for number, endpoint in enumerate(endpoints)
            ],
            "names": dict(self.environment.names),
            "dns": list(dns),
            "pem": self.environment.pem,
            "seconds": LIFE,
        }
        return self._start(
            self.images["backend"],
            ["python3", "-c", source(stub), json.dumps(plan)],
            network_mode="none",
            sysctls=self._sysctls(),
            mounts=[shared_folder(SOCKETS)] if self.sockets else [],
        )

    def _sysctls(self) -> dict[str, str]:
        """Enable IPv6 if the config needs it: Docker disables it without a network."""
        if not self.environment.ipv6:
            return {}
        return {f"net.ipv6.conf.{which}.disable_ipv6": "0" for which in ("all", "default")}

    def _connect(self) -> None:
        """Connect nginx's namespace to the far stub backends, and add its own addresses."""
        local = [Address("lo", address) for address in self.environment.own]
        far = list(
            dict.fromkeys(
                endpoint.host for endpoint in self.environment.endpoints if not endpoint.near
            )
        )
        ends = [(near_end(number, host), host) for number, host in enumerate(far, 1)]
        if self.far is not None:
            here = [Address(veth.NAME, mine, other) for mine, other in ends]
            there = [Address(veth.NAME, other, mine) for mine, other in ends]
            self._network(self.near, [*local, *here], beside=self.far)
            self._network(self.far, there)
        elif local:
            self._network(self.near, local)

    def _network(
        self, where: Container, addresses: Sequence[Address], beside: Container | None = None
    ) -> None:
        """Change a container's network from a short-lived container with NET_ADMIN only.

        `beside` is the container that gets the other end of a new veth pair.
        """
        words = ["docker", "run", "--rm", "-i", "--label", f"{LABEL}={self.id}", "--user", "0:0"]
        words += ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]
        words += ["--security-opt", "no-new-privileges:true", "--network", f"container:{where.id}"]
        # ip reads the other namespace from /proc, which takes SYS_PTRACE
        other = ["--pid", f"container:{beside.id}", "--cap-add", "SYS_PTRACE"] if beside else []
        words += other
        words += ["--entrypoint", "ip", self.images["load"], "-batch", "-"]
        lines = "\n".join(veth.commands(addresses, new=beside is not None))
        done = run(words, stdin=lines.encode(), check=False, timeout=START_SECONDS)
        if done.returncode:
            raise LabError(
                f"the stub backends' network could not be set up: {done.stderr.strip()}",
                "make setup",
            )


def near_end(number: int, other: str) -> str:
    """The address of nginx's end of the veth pair for the stub backend at `other`.

    From the ranges for benchmarks and for private use: RFC 2544, RFC 4193.
    """
    if ":" in other:
        return f"fd00:6c61:62::{number:x}"
    return f"198.19.{number >> 8}.{number & 255}"


def shared_folder(path: str) -> Mount:
    """An empty folder in memory for containers that share it; it is removed with the last."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777"}
    return Mount(path, None, type="volume", driver_config=DriverConfig("local", options))


def present(engine: docker.DockerClient, image: str) -> None:
    """Raise LabError if the engine lacks an image; the lab's images are in no registry."""
    try:
        engine.images.get(image)
    except docker.errors.ImageNotFound:
        raise LabError(f'no image "{image}"', SETUP) from None


def await_stubs(container: Container) -> None:
    """Return when a stub backend listens on every endpoint of a container."""
    output = poll(
        lambda: logs(container),
        lambda output: b"ready" in output or not alive(container),
        START_SECONDS,
    )
    if b"ready" not in output:
        words = output.decode(errors="replace").strip() or "no output"
        raise LabError(f"the stub backends did not come up: {words}")


def logs(container: Container) -> bytes:
    """The output of a container so far."""
    try:
        return bytes(container.logs())
    except docker.errors.APIError:
        return b""


def alive(container: Container) -> bool:
    """Whether a container runs."""
    try:
        container.reload()
    except docker.errors.NotFound:
        return False
    return bool(container.status in ("created", "running"))


def source(script: Any) -> str:
    """The text of a script that runs inside a container."""
    return Path(script.__file__).read_text()
