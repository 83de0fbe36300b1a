"""One lab on the engine: bring it up healthy, remove it completely, report what runs."""

import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import LabError, UsageError
from ..paths import INSTALLED, ROOT, SETUP, state_folder
from ..signals import signals_held
from . import engine, session
from .engine import Container, Described
from .shell import CommandError, poll, run

PROJECT = "nginx-llm-lab"
MOST_BACKENDS = 32
BACKEND_PORT = 8000
METRICS = "metrics"  # the profile of Prometheus in compose.yaml
# variables of a backend that replace its profile's limits
LIMITS = ("MAX_NUM_SEQS", "MAX_NUM_BATCHED_TOKENS", "KV_BLOCKS", "QUEUE_LIMIT")
UP_SECONDS = 180
GRACE = 60  # seconds for which an interrupted command waits for Compose to end
JOURNAL_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab: its Compose project and its two doors on loopback."""

    project: str = PROJECT
    port: int = 8080
    door_port: int = 8081

    @property
    def front(self) -> str:
        """The front door's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def door(self) -> str:
        """The lab door's address."""
        return f"http://127.0.0.1:{self.door_port}"

    @property
    def state(self) -> Path:
        """The folder of this lab's generated files."""
        return state_folder() / self.project

    @property
    def active(self) -> Path:
        """The folder with the upstream.conf that nginx serves; in a checkout nginx/active."""
        in_checkout = self.project == PROJECT and not INSTALLED
        return ROOT / "nginx/active" if in_checkout else self.state / "active"


def from_environment() -> Lab:
    """The lab that LAB_PROJECT, LAB_PORT and LAB_DOOR_PORT name."""
    project = os.environ.get("LAB_PROJECT", PROJECT)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project):
        raise UsageError(
            f'project name "{project}" is not valid in Compose',
            "lower-case letters, digits, dashes and underscores",
        )
    return Lab(project, _port("LAB_PORT", 8080), _port("LAB_DOOR_PORT", 8081))


def _port(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise UsageError(f'{variable}="{text}" is not a port', "a number from 1 to 65535")
    return int(text)


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def running(lab: Lab) -> Lab:
    """The lab with the ports that it runs on; `lab` itself if it is down."""
    doors = [container for container in containers(lab) if service(container) == "nginx"]
    ports = doors[0].attrs["NetworkSettings"]["Ports"] if doors else {}
    published = {inner: int(outer[0]["HostPort"]) for inner, outer in ports.items() if outer}
    return Lab(
        lab.project,
        published.get("8080/tcp", lab.port),
        published.get("8081/tcp", lab.door_port),
    )


# --- Compose files ------------------------------------------------------------------------


def command(lab: Lab, *arguments: str) -> list[str]:
    """`docker compose` for this lab."""
    files = [ROOT / "compose.yaml", lab.state / "override.yaml"]
    chosen = [word for file in files if file.exists() for word in ("-f", str(file))]
    where = ["--project-directory", str(ROOT), "-p", lab.project]
    return ["docker", "compose", *where, *chosen, *arguments]


def environment(lab: Lab, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for compose.yaml."""
    return {
        "LAB_PORT": str(lab.port),
        "LAB_DOOR_PORT": str(lab.door_port),
        "LAB_ACTIVE": str(lab.active),
        "LAB_NGINX": chosen_nginx(),
        "LAB_DEFINITION": definition("nginx"),
        **(extra or {}),
    }


def chosen_nginx() -> str:
    """The nginx flavour that the environment selects: mainline or debian."""
    return os.environ.get("NGINX", "mainline")


def image(name: str) -> str:
    """The image that compose.yaml gives a service, its variables filled in."""
    values = {**os.environ, "LAB_NGINX": chosen_nginx()}
    text = str(_services()[name]["image"])
    return re.sub(
        r"\$\{(\w+)(?::-([^}]*))?\}", lambda match: values.get(match[1]) or match[2] or "", text
    )


def definition(name: str) -> str:
    """A digest of a service's definition in compose.yaml, to detect edits."""
    return hashlib.sha256(json.dumps(_services()[name]).encode()).hexdigest()[:16]


def _services() -> Mapping[str, Any]:
    """The services of compose.yaml."""
    import yaml  # 30 ms, which `lab use` has no time for

    services: Mapping[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return services


# --- up, down -----------------------------------------------------------------------------


def up(lab: Lab, backends: int = 3, settings: Mapping[str, str] | None = None) -> None:
    """Start the lab, or change the running one; return when every container is healthy.

    `settings` are further variables of compose.yaml (LAB_PROFILE, LAB_TIME_SCALE). A lab that
    cannot start is taken down again, unless it was running before. An interruption takes effect
    after Compose has ended, because stopping it midway would leave backends that nginx cannot
    resolve.
    """
    if not 1 <= backends <= MOST_BACKENDS:
        raise UsageError(
            f"--backends {backends} is out of range", f"a number from 1 to {MOST_BACKENDS}"
        )
    refuse_other_checkout(lab)
    was_running = bool(containers(lab))
    if not was_running:
        refuse_taken(lab.port)
        refuse_taken(lab.door_port)
    from .override import write_override  # imports yaml, which is too slow for `lab use`

    write_override(lab, backends)
    words = ["up", "-d", "--wait", "--wait-timeout", str(UP_SECONDS), "--remove-orphans"]
    remove_misconfigured_nginx(lab)
    if _nginx_is_current(lab):
        # Compose recreates nginx for another number of backends to wait for: clients would notice
        names = [f"backend-{number}" for number in range(1, backends + 1)]
        words += ["--no-deps", *names, "load"]
    start = command(lab, *words)
    try:
        run(start, env=environment(lab, settings), timeout=UP_SECONDS + 60, grace=GRACE)
    except CommandError as error:
        text = "\n".join(unhealthy_logs(lab))
        if not was_running:
            down(lab)
        raise LabError(
            f'lab "{lab.project}" did not come up healthy\n{error.message}\n{text}'.rstrip(),
            f"{SETUP}, then lab up" if "image" in error.stderr else "lab status",
        ) from None
    except BaseException:
        if not was_running:
            down(lab)
        raise


def up_prometheus(lab: Lab) -> None:
    """Start Prometheus for the running lab; return when it is ready."""
    start = command(lab, "--profile", METRICS, "up", "-d", "--wait", "--no-deps", "prometheus")
    try:
        run(start, env=environment(lab), timeout=UP_SECONDS)
    except CommandError as error:
        raise LabError(f"Prometheus did not start\n{error.message}", "lab status") from None


def refuse_other_checkout(lab: Lab) -> None:
    """Raise LabError if a lab of this name was started from another folder that still exists."""
    for container in containers(lab):
        folder = container.labels.get("com.docker.compose.project.working_dir", "")
        if folder and Path(folder) != ROOT and Path(folder).is_dir():
            raise LabError(
                f'lab "{lab.project}" was started from {folder}, not from {ROOT}',
                "run lab down there; or start one of your own:"
                f" LAB_PROJECT={lab.project}-2 LAB_PORT={lab.port + 1000}"
                f" LAB_DOOR_PORT={lab.door_port + 1000} lab up",
            )


def remove_misconfigured_nginx(lab: Lab) -> None:
    """Remove an nginx container that does not read this lab's files, so that it is recreated.

    Reasons: the state folder was lost or recreated, the checkout was moved, or plain Compose
    started it.
    """
    for container in containers(lab):
        if service(container) == "nginx" and not reads_own_files(lab, container):
            run(["docker", "rm", "--force", container.id])


def reads_own_files(lab: Lab, nginx: Container) -> bool:
    """Whether nginx has mounted the lab's folders and sees the same files there."""
    mounts = {mount["Destination"]: mount["Source"] for mount in nginx.attrs["Mounts"]}
    sources = (mounts.get("/etc/nginx/lab"), mounts.get("/etc/nginx/lab/active"))
    if sources != (str(ROOT / "nginx"), str(lab.active)):
        return False
    if nginx.status != "running":
        return True
    seen = session.execute(nginx.id, ["cat", "/etc/nginx/lab/active/upstream.conf"], 30)
    file = lab.active / "upstream.conf"
    return seen.code == 0 and file.exists() and seen.stdout == file.read_bytes()


def _nginx_is_current(lab: Lab) -> bool:
    """Whether nginx is healthy, with the current definition, ports and image."""
    nginxes = [container for container in containers(lab) if service(container) == "nginx"]
    if not nginxes or health(nginxes[0]) != "healthy" or running(lab) != lab:
        return False
    if nginxes[0].labels.get("nginx-llm-lab.definition") != definition("nginx"):
        return False
    tag = str(nginxes[0].attrs["Config"]["Image"])
    words = ["docker", "image", "inspect", "--format", "{{.Id}}", tag]
    same = run(words, check=False).stdout.strip() == nginxes[0].attrs["Image"]
    return same and tag.startswith(f"nginx-llm-lab/nginx:{chosen_nginx()}-")


def settings(lab: Lab) -> dict[str, str]:
    """PROFILE, TIME_SCALE and LIMITS of the running backends; the defaults if none run."""
    usual = {"PROFILE": "instant", "TIME_SCALE": "1", **dict.fromkeys(LIMITS, "")}
    backends = [container for container in containers(lab) if service(container) == "backend-1"]
    given = backends[0].attrs["Config"]["Env"] if backends else []
    running = dict(text.partition("=")[::2] for text in given)
    return {name: running.get(name, value) for name, value in usual.items()}


def remove_surplus(lab: Lab, backends: int) -> None:
    """Stop and remove the backends beyond that number; each finishes its requests.

    Their journals are kept, because a run in progress still needs them.
    """
    wanted = {f"backend-{number}" for number in range(1, backends + 1)}
    surplus = [
        container for container in containers(lab) if service(container).startswith("backend-")
    ]
    for container in surplus:
        if service(container) not in wanted:
            with signals_held():  # nginx cannot resolve the name of one that is only stopped
                _remove(lab, container)


def _remove(lab: Lab, backend: Container) -> None:
    run(["docker", "stop", "-t", "25", backend.id])
    with _removed_journals(lab).open("ab") as file:
        file.write(engine.printed_since(backend.id, 0.0).stdout)
    run(["docker", "rm", "--volumes", backend.id])


def refuse_taken(port: int) -> None:
    """Raise LabError if something already listens on the loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise LabError(
                f"port {port} on 127.0.0.1 is in use",
                f"LAB_PORT={port + 1000} LAB_DOOR_PORT={port + 1001} lab up,"
                " or end what listens there",
            ) from None


def down(lab: Lab) -> None:
    """Remove every container, network and volume of this lab; never those of another checkout."""
    refuse_other_checkout(lab)
    run(
        command(
            lab, "--profile", METRICS, "down", "--volumes", "--remove-orphans", "--timeout", "25"
        ),
        env=environment(lab),
        timeout=240,
    )
    (lab.state / "override.yaml").unlink(missing_ok=True)
    _removed_journals(lab).unlink(missing_ok=True)
    if remains := leftovers(lab):
        raise LabError(f'still there after "down": {", ".join(remains)}', "docker system prune")


def leftovers(lab: Lab) -> list[str]:
    """The names of this lab's remaining containers, networks and volumes."""
    label = f"label=com.docker.compose.project={lab.project}"
    listed = [
        run(["docker", kind, "ls", "--filter", label, "--format", "{{.Name}}"]).stdout.split()
        for kind in ("network", "volume")
    ]
    return [
        *(container.name for container in containers(lab)),
        *(name for names in listed for name in names),
    ]


def unhealthy_logs(lab: Lab) -> Iterator[str]:
    """The last log lines of every container that is not healthy."""
    for container in containers(lab):
        if health(container) in ("healthy", "running"):
            continue
        logged = run(["docker", "logs", "--tail", "8", container.id], check=False)
        tail = f"{logged.stdout}{logged.stderr}".strip()
        yield f"--- {service(container)} is {health(container)}:\n{tail}"


def journals(lab: Lab, since: float, lines: int) -> bytes:
    """The backends' own log lines since a moment, once they have as many requests as nginx's log.

    The engine stores a container's output with a short delay.
    """

    def read() -> bytes:
        backends = backend_containers(lab)
        present = (engine.printed_since(backend.id, since).stdout for backend in backends)
        return b"".join([*removed_journals(lab, since), *present])

    return poll(read, lambda text: text.count(b"\n") >= lines, JOURNAL_SECONDS)


def removed_journals(lab: Lab, since: float) -> Iterator[bytes]:
    """The journal lines, since a moment, of backends that were removed."""
    file = _removed_journals(lab)
    if not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            ended = re.match(rb'\{"t":([0-9.]+),', line)
            if ended and float(ended[1]) >= since:
                yield line


def _removed_journals(lab: Lab) -> Path:
    """The file that keeps the journals of removed backends until the lab is taken down."""
    lab.state.mkdir(parents=True, exist_ok=True)
    return lab.state / "removed.jsonl"


# --- what runs ----------------------------------------------------------------------------


def containers(lab: Lab) -> list[Container]:
    """This lab's containers, running or not, in natural order of their services."""
    return sorted(_started(lab), key=lambda container: natural(service(container)))


def _started(lab: Lab, *labels: str) -> list[Container]:
    """The containers of this lab that Compose started and that have these further labels."""
    # Containers of images built by Compose inherit its project label.
    mine = [f"com.docker.compose.project={lab.project}", "com.docker.compose.config-hash"]
    return engine.containers([*mine, *labels])


def natural(name: str) -> tuple[str | int, ...]:
    """A sort key that puts backend-2 before backend-10."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))


def service(container: Described) -> str:
    """The Compose service that a container runs."""
    return str(container.labels["com.docker.compose.service"])


def health(container: Described) -> str:
    """Healthy, unhealthy or starting; the container's state if it has no health check."""
    state = container.attrs["State"]
    if state["Status"] != "running":
        return str(state["Status"])
    return str(state.get("Health", {}).get("Status", "running"))


def container(lab: Lab, name: str) -> Container:
    """The container of service `name`, running or not."""
    started = _started(lab, f"com.docker.compose.service={name}")
    if not started:
        known = ", ".join(service(other) for other in containers(lab))
        if not known:
            raise not_up(lab)
        raise LabError(f'no "{name}" in lab "{lab.project}" ({known})', "lab up")
    return started[0]


def backend_containers(lab: Lab) -> list[Container]:
    """The backends' containers, backend-1 first."""
    backends = [
        container for container in containers(lab) if service(container).startswith("backend-")
    ]
    if not backends:
        raise not_up(lab)
    return backends


def not_up(lab: Lab) -> LabError:
    """The error for a command that needs a running lab."""
    return LabError(f'lab "{lab.project}" is not up', "lab up")


def addresses(lab: Lab) -> dict[str, str]:
    """Every address that nginx may log, with the text of its `server` line."""
    return {
        f"{address(container)}:{BACKEND_PORT}": f"{service(container)}:{BACKEND_PORT}"
        for container in backend_containers(lab)
        if address(container)
    }


def address(container: Described) -> str:
    """A container's address on the network that nginx reaches backends by."""
    networks = container.attrs["NetworkSettings"]["Networks"]
    inside = [net for name, net in networks.items() if name.endswith("_inside")]
    return str(inside[0]["IPAddress"]) if inside else ""


def started(container: Described) -> float:
    """When a container was last started, in seconds since the epoch."""
    return moment(container.attrs["State"]["StartedAt"])


def moment(text: str) -> float:
    """A timestamp of the engine in seconds since the epoch; 0 for the engine's zero time."""
    return 0.0 if text.startswith("0001-") else datetime.fromisoformat(text).timestamp()


def wait_healthy(lab: Lab, names: Sequence[str], seconds: float = 60) -> None:
    """Wait until these services run and none is unhealthy or still starting."""

    def unfit() -> dict[str, str]:
        states = {service(container): health(container) for container in containers(lab)}
        by_name = {name: states.get(name, "gone") for name in names}
        return {
            name: condition
            for name, condition in by_name.items()
            if condition not in ("healthy", "running")
        }

    if bad := poll(unfit, lambda bad: not bad, seconds):
        text = ", ".join(f"{name} is {state}" for name, state in bad.items())
        raise LabError(f"after {seconds:g} s {text}", "lab status; lab logs SERVICE")


def execute(lab: Lab, name: str, words: list[str], timeout: float = 120) -> str:
    """Run a command in service `name` and return what it printed; CommandError if it fails.

    Raises LabError if the service does not run.
    """
    try:
        output = session.output(running_id(lab, name), words, timeout)
    except CommandError as error:
        raise CommandError([name, *words], error.returncode, error.stderr) from None
    return output.decode(errors="surrogateescape")


def container_id(lab: Lab, name: str) -> str:
    """The id of service `name`'s container, running or not."""
    return str(container(lab, name).id)


def running_id(lab: Lab, name: str) -> str:
    """The id of service `name`'s container; LabError if it does not run."""
    target = container(lab, name)
    if target.status != "running":
        raise LabError(f"{name} is {target.status}", "lab heal")
    return str(target.id)
