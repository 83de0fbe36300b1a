"""Start the stacks to compare the lab with, in containers on the lab's own network."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..stack import compose
from ..stack.compose import Lab
from ..stack.shell import CommandError, run, wait_for
from ..traffic.ab import INSIDE

STACKS = Path(__file__).parent / "stacks"
TMP = ["--read-only", "--tmpfs", "/tmp:mode=1777"]  # noqa: S108 - a mount in the container


@dataclass(frozen=True, slots=True)
class Target:
    """A stack under test: the address of its door inside the lab's network, and its containers.

    `proxies` and `backends` are container ids.
    """

    name: str
    base: str
    proxies: tuple[str, ...]
    backends: tuple[str, ...]


def the_lab(lab: Lab) -> Target:
    """The lab itself."""
    backends = tuple(backend.id for backend in compose.backend_containers(lab))
    return Target("lab", INSIDE, (compose.container_id(lab, "nginx"),), backends)


@contextmanager
def rivals(lab: Lab) -> Iterator[list[Target]]:
    """The lab, the ceiling, the article's stack and, where it can be built, HAProxy."""
    with ExitStack() as stack:
        targets = [
            the_lab(lab),
            stack.enter_context(ceiling(lab)),
            stack.enter_context(article(lab)),
        ]
        if image := haproxy_image(lab):
            targets.append(stack.enter_context(haproxy(lab, image)))
        for target in targets:
            wait_until_answered(lab, target)
        yield targets


@contextmanager
def ceiling(lab: Lab) -> Iterator[Target]:
    """The lab's nginx and configuration in front of three nginx with a constant response."""
    name = unique_name("ceiling")
    image = image_of(lab, "nginx")
    with TemporaryDirectory() as folder, started() as start:
        backends = tuple(
            start(lab, f"{name}-{number}", image, nginx("/bench/ceiling.conf"), mount(STACKS))
            for number in (1, 2, 3)
        )
        active = Path(folder)
        active.chmod(0o755)
        upstream = (lab.active / "upstream.conf").read_text()
        (active / "upstream.conf").write_text(upstream.replace("backend-", f"{name}-"))
        config = ["-v", f"{mounted(lab, '/etc/nginx/lab')}:/etc/nginx/lab:ro"]
        config += ["-v", f"{active}:/etc/nginx/lab/active:ro"]
        config += ["-v", "/var/log/nginx/lab", "--user", "101:101"]
        door = start(lab, name, image, nginx("/etc/nginx/lab/nginx.conf"), config)
        yield Target("ceiling", f"http://{name}:8081", (door,), backends)


@contextmanager
def article(lab: Lab) -> Iterator[Target]:
    """The article's nginx and its two `http.server` processes, in one network namespace."""
    name = unique_name("article")
    with started() as start:
        door = start(lab, name, image_of(lab, "nginx"), nginx("/bench/article.conf"), mount(STACKS))
        joined = ["--network", f"container:{name}", "--entrypoint", "", *mount(STACKS)]
        backends = tuple(
            start(
                lab,
                f"{name}-{port}",
                image_of(lab, "backend-1"),
                ["python3", "/bench/article_server.py", port],
                joined,
            )
            for port in ("8001", "8002")
        )
        yield Target("article", f"http://{name}:8080", (door,), backends)


def haproxy_image(lab: Lab) -> str | None:
    """The image with Debian's HAProxy; None where no Debian mirror can be reached."""
    tag = "nginx-llm-lab/haproxy:bench"
    base = image_of(lab, "load")
    build = ["docker", "build", "-q", "-t", tag, "--build-arg", f"BASE={base}", str(STACKS)]
    try:
        run(build)
    except CommandError:
        return None
    return tag


@contextmanager
def haproxy(lab: Lab, image: str) -> Iterator[Target]:
    """Debian's HAProxy in front of the lab's own backends."""
    name = unique_name("haproxy")
    with started() as start:
        door = start(lab, name, image, [], [])
        yield Target("haproxy", f"http://{name}:8080", (door,), the_lab(lab).backends)


class Start:
    """Starts containers, and records their ids for their removal."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(
        self, lab: Lab, name: str, image: str, command: Sequence[str], options: Sequence[str]
    ) -> str:
        """Start a container on the lab's inner network, unless `options` name another; its id."""
        words = ["docker", "run", "-d", "--name", name, *TMP]
        if "--network" not in options:
            words += ["--network", f"{lab.project}_inside"]
        container = run([*words, *options, image, *command]).stdout.strip()
        self.ids.append(container)
        return container


@contextmanager
def started() -> Iterator[Start]:
    """Start containers, and remove them at the end, the last one first."""
    start = Start()
    try:
        yield start
    finally:
        for container in reversed(start.ids):
            run(["docker", "rm", "-f", "-v", container], check=False)


def wait_until_answered(lab: Lab, target: Target) -> None:
    """Wait until a target's door answers a request."""
    load = compose.container_id(lab, "load")
    ask = ["docker", "exec", load, "ab", "-q", "-n", "1", "-p", "/etc/hostname", f"{target.base}/"]
    wait_for(
        lambda: run(ask, check=False).returncode == 0, 30, f"an answer of the stack {target.name}"
    )


def unique_name(kind: str) -> str:
    """A unique container name."""
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def image_of(lab: Lab, service: str) -> str:
    """The id of the image that a service runs."""
    return str(compose.container(lab, service).attrs["Image"])


def mounted(lab: Lab, target: str) -> str:
    """The folder of this machine that nginx sees as `target`."""
    mounts = compose.container(lab, "nginx").attrs["Mounts"]
    return next(str(mount["Source"]) for mount in mounts if mount["Destination"] == target)


def mount(folder: Path) -> list[str]:
    """The options that show a container a folder as /bench."""
    return ["-v", f"{folder}:/bench:ro"]


def nginx(config: str) -> list[str]:
    """The command that runs nginx in the foreground."""
    return ["nginx", "-e", "stderr", "-c", config, "-g", "daemon off;"]
