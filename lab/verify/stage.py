"""Run nginx with the user's nginx.conf and stand-ins in containers without a network.

Everything ends by itself after a few minutes, even where whoever started it was killed.
"""

import io
import json
import os
import re
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container

from ..errors import LabError
from ..paths import SETUP
from ..stack import compose
from ..stack.sdk import engine
from ..stack.shell import poll, run
from . import cable, caller, standin
from .cable import Address
from .doubts import Doubt, absent_file, unresolved
from .setting import Door, Setting
from .survey import DNS_PORT

LABEL = "nginx-llm-lab.verify"
IMAGES = {"nginx": "nginx", "backend": "backend-1", "load": "load"}  # by the service that has it
# Seconds that stand-ins take where they are asked to be themselves: least_time rounds to 20 ms, so
# in the middle of that; so far apart that a step more or less changes no order.
PACES = 0.01, 0.03, 0.05
LIFE = 300  # seconds after which everything on a stage ends by itself
START_SECONDS = 15
MENDS = 60  # how many things nginx may find missing
NGINX_USER = 101
PREFIX = "/etc/nginx"
# folders that packages and images make for nginx, which runs without root here
FOLDERS = ("run", "var/run", "var/log/nginx", "var/cache/nginx", "var/lib/nginx", "etc/nginx/logs")
# what an image keeps for its own sites; the user's file is to meet none of it
IMAGE_SITES = re.compile(r"/etc/nginx/(conf\.d|sites-enabled|modules-enabled|stream-enabled)/.")
# answers "no such name" at once for what /etc/hosts lacks: each question would take 5 s otherwise
NAME_SERVER = "127.255.255.53"
OUTPUT = "/tmp/nginx.out"  # noqa: S108 - in a container of its own


@dataclass(slots=True)
class Mended:
    """What nginx lacks: files and folders to create, names and addresses to assign.

    `note` says so to the user; `doubt` is what nginx cannot start without, if it is that.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    note: str = ""
    doubt: Doubt | None = None


class Stage:
    """A context: on entering, nginx serves `setting.conf`; on leaving, nothing is left."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.id = uuid.uuid4().hex[:12]
        self.engine = engine()
        self.images = {name: compose.image(service) for name, service in IMAGES.items()}
        self.files = dict(setting.files)
        self.names = dict(setting.names)
        self.mended: list[str] = []
        self.doubts: list[Doubt] = []
        self.warnings: tuple[str, ...] = ()
        self.awaited: set[tuple[str, int]] = set()

    def __enter__(self) -> "Stage":
        try:
            self._raise()
        except BaseException:
            self.clear()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, it: BaseException | None, at: TracebackType | None
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove every container of this stage."""
        mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={self.id}"}
        for container in self.engine.containers.list(all=True, filters=mine, ignore_removed=True):
            try:
                container.remove(force=True, v=True)
            except (docker.errors.NotFound, docker.errors.APIError) as error:
                if error.status_code not in (404, 409):  # gone, or about to be
                    raise

    # --- bring up -------------------------------------------------------------------------

    def _raise(self) -> None:
        for image in self.images.values():
            present(self.engine, image)
        near = [door for door in self.setting.doors if door.near]
        far = [door for door in self.setting.doors if not door.near]
        self.near = self._standins(near, (*self.setting.dns, (NAME_SERVER, DNS_PORT)))
        self.far = self._standins(far, ()) if far else None
        self._connect()
        self.nginx = self._start(
            self.images["nginx"],
            ["sleep", str(LIFE)],
            network_mode=f"container:{self.near.id}",
            user=f"{NGINX_USER}:{NGINX_USER}",
            init=True,
        )
        self.image_files = self._image_files()
        hidden = {path: b"" for path in self.image_files if IMAGE_SITES.match(path)}
        self._lay({**hidden, **self.files}, FOLDERS)
        self._tell_names()
        self._mend_all()
        self._serve()

    def _start(self, image: str, command: Sequence[str], **more: Any) -> Container:
        """Start one container, hardened, that is removed when it ends."""
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

    def _standins(self, doors: Sequence[Door], dns: Sequence[tuple[str, int]]) -> Container:
        """A container without any network, with a stand-in at every door; once they listen."""
        plan = {
            "doors": [
                [door.host, door.port, door.tls, PACES[number % len(PACES)]]
                for number, door in enumerate(doors)
            ],
            "names": dict(self.setting.names),
            "dns": list(dns),
            "pem": self.setting.pem,
            "seconds": LIFE,
        }
        container = self._start(
            self.images["backend"],
            ["python3", "-c", source(standin), json.dumps(plan)],
            network_mode="none",
            sysctls=self._sysctls(),
        )
        said = poll(
            lambda: logs(container),
            lambda said: b"ready" in said or not alive(container),
            START_SECONDS,
        )
        if b"ready" not in said:
            words = said.decode(errors="replace").strip() or "they said nothing"
            raise LabError(f"the stand-ins did not come up: {words}")
        return container

    def _sysctls(self) -> dict[str, str]:
        """IPv6 where the config needs it: Docker switches it off where there is no network."""
        if not self.setting.ipv6:
            return {}
        return {f"net.ipv6.conf.{which}.disable_ipv6": "0" for which in ("all", "default")}

    def _connect(self) -> None:
        """Lay the cable to the far stand-ins, and give nginx's machine its addresses."""
        own = [Address("lo", address) for address in self.setting.own]
        far = list(dict.fromkeys(door.host for door in self.setting.doors if not door.near))
        ends = [(near_end(number, host), host) for number, host in enumerate(far, 1)]
        if self.far is not None:
            here = [Address(cable.NAME, mine, other) for mine, other in ends]
            there = [Address(cable.NAME, other, mine) for mine, other in ends]
            self._network(self.near, [*own, *here], beside=self.far)
            self._network(self.far, there)
        elif own:
            self._network(self.near, own)

    def _network(
        self, where: Container, addresses: Sequence[Address], beside: Container | None = None
    ) -> None:
        """Change a container's network from a short-lived one that may do that and nothing else.

        `beside` is the container that gets the other end of a new cable.
        """
        words = ["docker", "run", "--rm", "-i", "--label", f"{LABEL}={self.id}", "--user", "0:0"]
        words += ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]
        words += ["--security-opt", "no-new-privileges:true", "--network", f"container:{where.id}"]
        # ip reads the other namespace from /proc, which takes SYS_PTRACE
        other = ["--pid", f"container:{beside.id}", "--cap-add", "SYS_PTRACE"] if beside else []
        words += other
        words += ["--entrypoint", "ip", self.images["load"], "-batch", "-"]
        lines = "\n".join(cable.commands(addresses, new=beside is not None))
        done = run(words, stdin=lines.encode(), check=False, timeout=START_SECONDS)
        if done.returncode:
            raise LabError(
                f"the stand-ins' network could not be set up: {done.stderr.strip()}", "make setup"
            )

    # --- files, names ---------------------------------------------------------------------

    def _image_files(self) -> dict[str, bytes]:
        """What the image keeps under /etc/nginx, links as empty files."""
        stream, _ = self.nginx.get_archive(PREFIX)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            contents = {it.name: archive.extractfile(it) for it in archive if it.isreg()}
            links = {it.name: None for it in archive if it.issym() or it.islnk()}
            return {
                f"/etc/{name}": file.read() if file else b""
                for name, file in (contents | links).items()
            }

    def _lay(self, files: Mapping[str, bytes], folders: Sequence[str] = ()) -> None:
        """Put files and folders into nginx's container; all of them are its user's own."""
        self.nginx.put_archive("/", packed(files, folders))

    def _tell_names(self) -> None:
        """Write the hosts file that nginx's machine has."""
        lines = ["127.0.0.1 localhost"]
        lines += ["::1 localhost"] if self.setting.ipv6 else []
        lines += [f"{at} {name}" for name, at in self.names.items() if name != "localhost"]
        text = "\n".join([*lines, ""]).encode()
        words = ["docker", "exec", "-i", "-u", "0", str(self.nginx.id), "sh", "-c"]
        script = f"cat > /etc/hosts; echo nameserver {NAME_SERVER} > /etc/resolv.conf"
        run([*words, script], stdin=text)

    def _mend_all(self) -> None:
        """Supply what nginx lacks, one item at a time; else LabError with its message."""
        said = ""
        for _ in range(MENDS):
            before, said = said, self._complaint()
            if not said:
                return
            mended = (
                mend(said, self.files, self._content, self.setting.pem) if said != before else None
            )
            if mended is None:
                break
            self._apply(mended)
        replaced = "".join(f"\nreplaced before: {note}" for note in self.mended)
        raise LabError(
            f"nginx refuses {self.setting.conf}\n{said}{replaced}",
            "fix what nginx reports; for an nginx with other modules: NGINX=debian lab verify",
        )

    def _content(self, path: str) -> bytes | None:
        """The user's own file at a path, else the one that the image has beside its nginx.conf."""
        own = self.setting.own_files(path)
        beside = f"{PREFIX}/{os.path.relpath(path, PurePosixPath(self.setting.conf).parent)}"
        return own if own is not None else self.image_files.get(beside)

    def _apply(self, mended: Mended) -> None:
        self.files.update(mended.files)
        self.names.update(dict.fromkeys(mended.names, "127.0.0.1"))
        if mended.note:
            self.mended.append(mended.note)
        if mended.doubt:
            self.doubts.append(mended.doubt)
        if mended.files or mended.folders:
            self._lay(mended.files, [folder.lstrip("/") for folder in mended.folders])
        if mended.names:
            self._tell_names()
        if mended.own:
            self._network(self.near, [Address("lo", address) for address in mended.own])

    def _complaint(self) -> str:
        """The first reason for which `nginx -t` fails, empty where it does not."""
        code, output = self._ask(["nginx", "-t", *self._words()])
        lines = output.splitlines()
        if code == 0:
            self.warnings = tuple(dict.fromkeys(warnings(lines)))
            return ""
        grave = [line for line in lines if "[emerg]" in line or "[crit]" in line]
        return re.sub(r"^.*?\[(emerg|crit)\] (\d+#\d+: )?", "", (grave or lines or ["?"])[0])

    def _ask(self, words: Sequence[str]) -> tuple[int, str]:
        """Run a command beside nginx: its exit code and what it printed."""
        code, output = self.nginx.exec_run(list(words))
        return int(code or 0), bytes(output).decode(errors="replace").strip()  # type: ignore[arg-type]  # not a stream

    def _words(self) -> list[str]:
        return ["-q", "-e", "stderr", "-p", f"{PREFIX}/", "-c", self.setting.conf]

    # --- play -----------------------------------------------------------------------------

    def _serve(self) -> None:
        script = f'exec nginx "$@" > {OUTPUT} 2>&1'
        words = [word for word in self._words() if word != "-q"]
        self.nginx.exec_run(["sh", "-c", script, "nginx", *words], detach=True)

    def await_nginx(self, host: str, port: int) -> None:
        """Return once nginx listens there; LabError with its words where it does not."""
        if (host, port) in self.awaited:
            return
        self.awaited.add((host, port))
        if not self._execute({"host": host, "port": port, "seconds": START_SECONDS}):
            _, said = self._ask(["cat", OUTPUT])
            words = said or "it said nothing"
            raise LabError(f"nginx does not listen on {host}:{port}\n{words}")

    def call(self, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Carry out a plan of calls beside nginx; the records in the order of their answers."""
        found: list[dict[str, Any]] = self._execute(plan)
        return found

    def _execute(self, plan: Mapping[str, Any]) -> Any:
        words = ["docker", "exec", "-i", str(self.near.id), "python3", "-c", source(caller)]
        return json.loads(run(words, stdin=json.dumps(plan).encode(), timeout=LIFE).stdout)

    def close_doors(self, doors: Sequence[str]) -> None:
        """Let these stand-ins ("10.0.0.5:8000") refuse connections, and all others serve."""
        for container in filter(None, (self.near, self.far)):
            run(
                [
                    "docker",
                    "exec",
                    str(container.id),
                    "python3",
                    "-c",
                    source(standin),
                    "close",
                    *doors,
                ]
            )

    def hold_workers(self, count: str) -> None:
        """Stop all workers but the first, so that one worker's own state is seen.

        `count` is the config's number of workers; they may still be coming up.
        """
        script = r"""
            want=$1; [ "$want" = auto ] && want=$(nproc)
            for _ in $(seq 100); do
                set -- $(grep -l 'nginx: [w]orker process' /proc/[0-9]*/cmdline 2>/dev/null |
                    cut -d/ -f3 | sort -n)
                [ $# -ge "$want" ] && break
                sleep 0.02
            done
            [ $# -gt 1 ] && shift && kill -STOP "$@"
            true"""
        self.nginx.exec_run(["sh", "-c", script, "hold", count])

    def version(self) -> str:
        """The version of the nginx on the stage."""
        _, said = self._ask(["nginx", "-v"])
        found = re.search(r"nginx/(\S+)", said)
        return found[1] if found else "?"


def warnings(lines: Sequence[str]) -> Iterator[str]:
    """What nginx warns of, except that it does not run as root here."""
    for line in lines:
        said = re.sub(r"^.*?\[warn\] (\d+#\d+: )?", "", line)
        if said != line and '"user" directive makes sense only' not in said:
            yield f"nginx warns: {said}"


def mend(
    said: str, files: Mapping[str, bytes], content: Callable[[str], bytes | None], pem: str
) -> Mended | None:
    """What would still one complaint of nginx's; None where nothing the lab has would.

    `content` gives the user's own file at a path, None where there is none.
    The complaints are those of nginx's conf_file.c, connection.c, event_openssl.c and inet.c.
    """
    if found := re.search(r'dlopen\(\) "([^"]*)".* in (\S+):(\d+)$', said):
        return without_module(found[1], found[2], int(found[3]), files)
    if found := re.search(r"bind\(\) to (\[[^]]+\]|[\d.]+):\d+ failed \(99:", said):
        return Mended(own=[found[1].strip("[]")])
    if found := re.search(r'host not found in .*?"(?:\w+://)?([\w.-]+)[^"]*"', said):
        where = said.rpartition(" in ")[2]
        note = f'host "{found[1]}" ({where}): no stand-in for it'
        return Mended(names=[found[1]], note=note, doubt=unresolved(found[1], where, ()))
    if pem and (
        found := re.search(r'(?:certificate(?: key)?|BIO_new_file\(|locations\()\s?"([^"]+)"', said)
    ):
        note = f"certificate {found[1]}: the lab's own instead"
        return Mended(files={found[1]: pem.encode()}, note=note)
    if found := re.search(r'mkdir\(\) "([^"]+)" failed', said):
        return Mended(folders=[found[1]])
    if found := re.search(r'open\(\) "([^"]+)" failed \((?:2|13|20):', said):
        return opened(found[1], said, content(found[1]))
    return None


def opened(path: str, said: str, content: bytes | None) -> Mended:
    """A file that nginx cannot open: the user's own where there is one, else an empty one.

    Whatever it is to write to may as well be there before.
    """
    folders = [str(PurePosixPath(path).parent)]
    if content is not None:
        return Mended(files={path: content}, folders=folders)
    where = re.search(r" in (\S+:\d+)$", said)
    if where is None:
        return Mended(files={path: b""}, folders=folders)
    note = f"{path} (asked for in {where[1]}): not there, an empty file instead"
    return Mended(files={path: b""}, folders=folders, note=note, doubt=absent_file(path, where[1]))


def without_module(module: str, file: str, line: int, files: Mapping[str, bytes]) -> Mended | None:
    """The file without a `load_module` that nginx cannot follow; its lines keep their place."""
    if file not in files:
        return None
    lines = files[file].split(b"\n")
    lines[line - 1] = re.sub(rb"load_module[^;]*;", b"", lines[line - 1])
    note = f"load_module {module} ({file}:{line}): not in the lab's nginx, left out"
    return Mended(files={file: b"\n".join(lines)}, note=note)


def packed(files: Mapping[str, bytes], folders: Sequence[str]) -> bytes:
    """A tar of files and folders that belong to nginx's user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in folders:
            archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for path, content in files.items():
            entry = _entry(path.lstrip("/"), tarfile.REGTYPE, 0o644)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    entry.uid = entry.gid = NGINX_USER
    return entry


def near_end(number: int, other: str) -> str:
    """The address by which nginx's machine is known to the stand-in at `other`.

    From the ranges for benchmarks and for private use: RFC 2544, RFC 4193.
    """
    if ":" in other:
        return f"fd00:6c61:62::{number:x}"
    return f"198.19.{number >> 8}.{number & 255}"


def present(engine: docker.DockerClient, image: str) -> None:
    """LabError where the engine has no such image: the lab's own are in no registry."""
    try:
        engine.images.get(image)
    except docker.errors.ImageNotFound:
        raise LabError(f'no image "{image}"', SETUP) from None


def logs(container: Container) -> bytes:
    """What a container has printed so far."""
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
