"""Run nginx with the user's nginx.conf and stub backends in containers without a network.

Every container exits after LIFE seconds, even if this process was killed.
"""

import io
import json
import os
import re
import tarfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType, TracebackType
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container
from docker.types import DriverConfig, Mount

from ...errors import LabError
from ...nginxconf.upstream import COMMERCIAL
from ...nginxconf.upstream import hint_on as hint_on_directive
from ...paths import ROOT, SETUP
from ...stack import compose
from ...stack.sdk import engine
from ...stack.shell import poll, run
from ..logs import with_access_log, with_debug_log
from ..survey import DNS_PORT
from ..survey.environment import Endpoint, Environment
from ..survey.prerequisites import Prerequisite, absent_file, absent_module, unresolved
from . import client, stub, veth
from .veth import Address

LABEL = "nginx-llm-lab.verify"
IMAGES = {"nginx": "nginx", "backend": "backend-1", "load": "load"}  # by the service that has it
# Default response times of the stub backends. least_time rounds to 20 ms: these are in the middle
# of a step, and so far apart that a step more or less changes no order.
PACES = 0.01, 0.03, 0.05
LIFE = 300  # seconds after which a sandbox's containers exit
START_SECONDS = 15
MAX_FIXES = 60  # the most items that nginx may find missing
NGINX_USER = 101
PREFIX = "/etc/nginx"
# folders that packages and images make for nginx, or nginx itself as root; here it runs without
FOLDERS = (
    *("run", "var/run", "var/log/nginx", "var/cache/nginx", "var/lib/nginx", "etc/nginx/logs"),
    *(f"etc/nginx/{kind}_temp" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")),
)
# the image's own sites, which must not affect the user's file
IMAGE_SITES = re.compile(r"/etc/nginx/(conf\.d|sites-enabled|modules-enabled|stream-enabled)/.")
# answers "no such name" at once for names not in /etc/hosts, instead of a timeout of 5 s each
NAME_SERVER = "127.255.255.53"
DEBUG_LOG = "/tmp/nginx.debug"  # noqa: S108 - in a container of its own
ACCESS_LOG = "/tmp/nginx.access"  # noqa: S108 - in a container of its own
# the lab's certificate has no revocation list
REVOKED = re.compile(rb"\b(?:\w+_)?ssl_crl[ \t]+[^\s;{}#]+[ \t]*;")
HTTP_2 = re.compile(rb"\b(proxy_http_version[ \t]+)2(?=[ \t]*;)")
ACCEPT_MUTEX = re.compile(rb"\b(accept_mutex[ \t]+)on(?=[ \t]*;)")
LISTEN = re.compile(rb"\blisten\s+[^;{}#]+;")
FLAG = rb"\s+(?:on|off)"
# directives of the official image's nginx which the stand-in lacks, with their parameters: they
# change no pick of a server
OPTIONAL = {
    "stub_status": rb"(?:\s+\w+)?",
    "gunzip": FLAG,
    "gunzip_buffers": rb"\s+\d+\s+\d+[km]?",
    "gzip_static": rb"\s+(?:on|off|always)",
    "sub_filter": rb"""(?:\s+(?:"[^"]*"|'[^']*'|[^\s;"']+)){2}""",
    "sub_filter_once": FLAG,
    "sub_filter_last_modified": FLAG,
    "sub_filter_types": rb"(?:\s+[^\s;{}]+)+",
    "http3": FLAG,
    "quic_retry": FLAG,
    "quic_gso": FLAG,
}
LONGEST_LINE = 2048  # nginx cuts its log lines there
SOCKETS = "/nginx-llm-lab"  # the stub backends' unix sockets, in a folder of both containers
OUTPUT = "/tmp/nginx.out"  # noqa: S108 - in a container of its own


@dataclass(slots=True)
class Fix:
    """A fix for something that nginx lacks: files, folders, names or addresses to add.

    `note` tells the user; `prerequisite` is set if nginx cannot start without the item.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    note: str = ""
    prerequisite: Prerequisite | None = None


class Sandbox:
    """A context in which nginx serves `environment.conf`; exit removes every container."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.id = uuid.uuid4().hex[:12]
        self.engine = engine()
        self.images = {name: compose.image(service) for name, service in IMAGES.items()}
        self.files = dict(environment.files)
        self.names = dict(environment.names)
        sockets = (endpoint.socket for endpoint in environment.endpoints if endpoint.socket)
        self.sockets = {path: f"{SOCKETS}/{number}.sock" for number, path in enumerate(sockets)}
        self.fixes: list[str] = []
        self.prerequisites: list[Prerequisite] = []
        self.warnings: tuple[str, ...] = ()
        self.traced = False
        self.version = "?"
        self.awaited: set[tuple[str, int]] = set()

    def __enter__(self) -> "Sandbox":
        try:
            self._raise()
        except BaseException:
            self.clear()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove every container of this sandbox."""
        mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={self.id}"}
        for container in self.engine.containers.list(all=True, filters=mine, ignore_removed=True):
            try:
                container.remove(force=True, v=True)
            except (docker.errors.NotFound, docker.errors.APIError) as error:
                if error.status_code not in (404, 409):  # already removed, or being removed
                    raise

    # --- bring up -------------------------------------------------------------------------

    def _raise(self) -> None:
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
            self.nginx = nginx.result()
        for stubs in self._stub_containers():
            await_stubs(stubs)
        self.image_files = self._image_files()
        hidden = {path: b"" for path in self.image_files if IMAGE_SITES.match(path)}
        _, build = self._run_text(["nginx", "-V"])
        self.traced = "--with-debug" in build
        self.version = version_of(build)
        self._lay({**hidden, **self._edited(self.files)}, FOLDERS, self.sockets)
        self._write_name_files()
        self._fix_all()
        self._serve()

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

    def _stub_containers(self) -> list[Container]:
        return [container for container in (self.near, self.far) if container is not None]

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

    # --- files, names ---------------------------------------------------------------------

    def _image_files(self) -> dict[str, bytes]:
        """The image's files under /etc/nginx; links are empty files."""
        stream, _ = self.nginx.get_archive(PREFIX)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            contents = {
                member.name: archive.extractfile(member) for member in archive if member.isreg()
            }
            links = {member.name: None for member in archive if member.issym() or member.islnk()}
            return {
                f"/etc/{name}": file.read() if file else b""
                for name, file in (contents | links).items()
            }

    def _lay(
        self,
        files: Mapping[str, bytes],
        folders: Sequence[str] = (),
        links: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Copy files, folders and links into nginx's container; nginx's user owns them."""
        self.nginx.put_archive("/", packed(files, folders, links))

    def _write_name_files(self) -> None:
        """Write /etc/hosts and /etc/resolv.conf of nginx's container."""
        lines = ["127.0.0.1 localhost"]
        lines += ["::1 localhost"] if self.environment.ipv6 else []
        lines += [f"{at} {name}" for name, at in self.names.items() if name != "localhost"]
        text = "\n".join([*lines, ""]).encode()
        words = ["docker", "exec", "-i", "-u", "0", str(self.nginx.id), "sh", "-c"]
        script = f"cat > /etc/hosts; echo nameserver {NAME_SERVER} > /etc/resolv.conf"
        run([*words, script], stdin=text)

    def _fix_all(self) -> None:
        """Supply what nginx lacks, one item at a time; LabError with its message if that fails."""
        complaint = ""
        for _ in range(MAX_FIXES):
            before, complaint = complaint, self._first_error()
            if not complaint:
                return
            fixes = (
                fix_for(complaint, self.files, self._content, self.environment.pem)
                if complaint != before
                else None
            )
            if fixes is None:
                break
            self._apply(fixes)
        replaced = "".join(f"\nreplaced before: {note}" for note in self.fixes)
        raise LabError(
            f"nginx refuses {self.environment.conf}\n{complaint}{replaced}", hint_on(complaint)
        )

    def _content(self, path: str) -> bytes | None:
        """The user's file at a path, else the image's file beside its nginx.conf."""
        content = self.environment.own_files(path)
        beside = f"{PREFIX}/{os.path.relpath(path, PurePosixPath(self.environment.conf).parent)}"
        return content if content is not None else self.image_files.get(beside)

    def _apply(self, fixes: Fix) -> None:
        self.files.update(fixes.files)
        self.names.update(dict.fromkeys(fixes.names, "127.0.0.1"))
        if fixes.note:
            self.fixes.append(fixes.note)
        if fixes.prerequisite:
            self.prerequisites.append(fixes.prerequisite)
        if fixes.files or fixes.folders:
            self._lay(self._edited(fixes.files), [folder.lstrip("/") for folder in fixes.folders])
        if fixes.names:
            self._write_name_files()
        if fixes.own:
            self._network(self.near, [Address("lo", address) for address in fixes.own])

    def _first_error(self) -> str:
        """The first error of `nginx -t`; empty if it succeeds."""
        code, output = self._run_text(["nginx", "-t", *self._words()])
        lines = output.splitlines()
        if code == 0:
            self.warnings = tuple(dict.fromkeys(warnings(lines)))
            return ""
        grave = [line for line in lines if "[emerg]" in line or "[crit]" in line]
        return re.sub(r"^.*?\[(emerg|crit)\] (\d+#\d+: )?", "", (grave or lines or ["?"])[0])

    def _run_text(self, words: Sequence[str]) -> tuple[int, str]:
        """Run a command in nginx's container: its exit code and its output."""
        code, output = self._run_bytes(words)
        return code, output.decode(errors="replace").strip()

    def _run_bytes(self, words: Sequence[str]) -> tuple[int, bytes]:
        """Run a command in nginx's container: its exit code and its output, byte by byte."""
        code, output = self.nginx.exec_run(list(words))
        return int(code or 0), bytes(output)  # type: ignore[arg-type]  # not a stream

    def _words(self) -> list[str]:
        return ["-q", "-e", "stderr", "-p", f"{PREFIX}/", "-c", self.environment.conf]

    # --- serve ----------------------------------------------------------------------------

    def _serve(self) -> None:
        script = f'exec nginx "$@" > {OUTPUT} 2>&1'
        words = [word for word in self._words() if word != "-q"]
        if self.traced:
            words += ["-g", f"error_log {DEBUG_LOG} debug;"]
        self.nginx.exec_run(["sh", "-c", script, "nginx", *words], detach=True)

    def await_nginx(self, host: str, port: int) -> None:
        """Return once nginx listens there; else LabError with nginx's output."""
        if (host, port) in self.awaited:
            return
        self.awaited.add((host, port))
        if not self._execute({"host": host, "port": port, "seconds": START_SECONDS}):
            _, output = self._run_text(["cat", OUTPUT])
            words = output or "no output"
            raise LabError(f"nginx does not listen on {host}:{port}\n{words}")

    def send(self, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Send a plan's requests from nginx's namespace; records in the order of the responses."""
        pem = self.environment.pem
        records: list[dict[str, Any]] = self._execute({**plan, "pem": pem})
        return records

    def _execute(self, plan: Mapping[str, Any]) -> Any:
        words = ["docker", "exec", "-i", str(self.near.id), "python3", "-c", source(client)]
        return json.loads(run(words, stdin=json.dumps(plan).encode(), timeout=LIFE).stdout)

    def refuse_connections(self, endpoints: Sequence[str]) -> None:
        """Make exactly these stub backends ("10.0.0.5:8000") refuse connections."""
        close = ["python3", "-c", source(stub), "close", *endpoints]
        words = [["docker", "exec", str(stubs.id), *close] for stubs in self._stub_containers()]
        with ThreadPoolExecutor() as pool:
            list(pool.map(run, words))

    def debug_log(self) -> list[bytes]:
        """The debug log's lines on requests, picks and releases; none without a debug log."""
        if not self.traced:
            return []
        program = (ROOT / "nginx/trace.awk").read_text()
        words = ["awk", "-v", f"width={LONGEST_LINE}", program, DEBUG_LOG]
        return self._lines(words)

    def access_log(self) -> list[bytes]:
        """The lines of the lab's access log; none where the config has no such log."""
        return self._lines(["cat", ACCESS_LOG])

    def _lines(self, words: Sequence[str]) -> list[bytes]:
        """The lines that a command in nginx's container prints; none where it fails."""
        code, output = self._run_bytes(words)
        return [] if code else output.splitlines()

    def _edited(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """The files with the logs that the verdicts need, and without `reuseport`."""
        edited = {path: REVOKED.sub(b"", without_reuseport(text)) for path, text in files.items()}
        edited = {path: without_accept_mutex(without_http2(text)) for path, text in edited.items()}
        if self.traced:
            edited = {path: with_debug_log(text, DEBUG_LOG) for path, text in edited.items()}
        if self.environment.timed:
            edited = {path: with_access_log(text, ACCESS_LOG) for path, text in edited.items()}
        return edited

    def hold_workers(self, count: str) -> None:
        """Stop all workers but the first, so that one worker's state is seen.

        `count` is the config's number of workers; they may still be starting.
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


def version_of(build: str) -> str:
    """The version in the output of `nginx -V`."""
    match = re.search(r"nginx/(\S+)", build)
    return match[1] if match else "?"


def without_reuseport(content: bytes) -> bytes:
    """A config file in which workers share their sockets.

    With `reuseport` each worker has its own, and the kernel would still give connections to the
    workers that `hold_workers` has stopped. Line numbers stay.
    """
    return LISTEN.sub(lambda match: re.sub(rb"(?<=\s)reuseport\b", b"", match[0]), content)


def without_accept_mutex(content: bytes) -> bytes:
    """A config file in which no worker that `hold_workers` has stopped keeps the others waiting."""
    return ACCEPT_MUTEX.sub(rb"\g<1>off", content)


def without_http2(content: bytes) -> bytes:
    """A config file that speaks HTTP/1.1 to the stub backends; this changes no pick."""
    return HTTP_2.sub(rb"\g<1>1.1", content)


def warnings(lines: Sequence[str]) -> Iterator[str]:
    """nginx's warnings, except the one about not running as root."""
    for line in lines:
        warning = re.sub(r"^.*?\[warn\] (\d+#\d+: )?", "", line)
        if warning != line and '"user" directive makes sense only' not in warning:
            yield f"nginx warns: {warning}"


def hint_on(complaint: str) -> str:
    """What the user can do about one of nginx's error messages."""
    unknown = re.search(r'unknown directive "(\w+)"', complaint)
    if unknown and unknown[1] in COMMERCIAL:
        return hint_on_directive(unknown[1])
    if variable := re.search(r'unknown "(\w+)" variable', complaint):
        return (
            f"define ${variable[1]} by set or map; if a template was to fill it in:"
            " envsubst < FILE | lab verify -"
        )
    if script := re.search(r'Cannot load module "([^"]+)"', complaint):
        return f"put {script[1]} beside the config, or at its path: nginx runs it at start"
    return "fix what nginx reports; for an nginx with other modules: NGINX=debian lab verify"


def fix_for(
    complaint: str, files: Mapping[str, bytes], content: Callable[[str], bytes | None], pem: str
) -> Fix | None:
    """The fix for one of nginx's error messages; None if the lab has none.

    `content` returns the user's own file at a path, None if there is none.
    The complaints are those of nginx's conf_file.c, connection.c, event_openssl.c and inet.c.
    """
    if match := re.search(r'dlopen\(\) "([^"]*)".* in (\S+):(\d+)$', complaint):
        return without_module(match[1], match[2], int(match[3]), files)
    if match := re.search(r'unknown directive "(\w+)" in (\S+:\d+)$', complaint):
        return without_directive(match[1], OPTIONAL.get(match[1]), match[2], files)
    if match := re.search(r"requires ngx_http_v3_module in (\S+:\d+)$", complaint):
        return without_directive("listen", rb"\s[^;{}#]*\bquic\b[^;{}#]*", match[1], files)
    if match := re.search(r"bind\(\) to (\[[^]]+\]|[\d.]+):\d+ failed \(99:", complaint):
        return Fix(own=[match[1].strip("[]")])
    if match := re.search(r'host not found in .*?"(?:\w+://)?([\w.-]+)[^"]*"', complaint):
        where = complaint.rpartition(" in ")[2]
        note = f'host "{match[1]}" ({where}): no stub backend for it'
        return Fix(names=[match[1]], note=note, prerequisite=unresolved(match[1], where, ()))
    if pem and (
        match := re.search(
            r'(?:certificate(?: key)?|BIO_new_file\(|locations\()\s?"([^"]+)"', complaint
        )
    ):
        note = f"certificate {match[1]}: the lab's own is used instead"
        return Fix(files={match[1]: pem.encode()}, note=note)
    if match := re.search(r'mkdir\(\) "([^"]+)" failed', complaint):
        return Fix(folders=[match[1]])
    if match := re.search(r'open\(\) "([^"]+)" failed \((?:2|13|20):', complaint):
        return opened(match[1], complaint, content(match[1]))
    return None


def opened(path: str, complaint: str, content: bytes | None) -> Fix:
    """The fix for a file that nginx cannot open: the user's file, else an empty one."""
    folders = [str(PurePosixPath(path).parent)]
    if content is not None:
        return Fix(files={path: content}, folders=folders)
    where = re.search(r" in (\S+:\d+)$", complaint)
    if where is None:
        return Fix(files={path: b""}, folders=folders)
    note = f"{path} (needed by {where[1]}): missing, replaced by an empty file"
    return Fix(
        files={path: b""}, folders=folders, note=note, prerequisite=absent_file(path, where[1])
    )


def without_module(module: str, file: str, line: int, files: Mapping[str, bytes]) -> Fix | None:
    """Remove a `load_module` that this nginx lacks; line numbers stay."""
    if file not in files:
        return None
    lines = files[file].split(b"\n")
    lines[line - 1] = re.sub(rb"load_module[^;]*;", b"", lines[line - 1])
    note = f"load_module {module} ({file}:{line}): not in the lab's nginx, left out"
    return Fix(
        files={file: b"\n".join(lines)},
        note=note,
        prerequisite=absent_module(module, f"{file}:{line}"),
    )


def without_directive(
    name: str, parameters: bytes | None, where: str, files: Mapping[str, bytes]
) -> Fix | None:
    """Remove a directive that this nginx lacks, wherever it has these parameters."""
    if parameters is None:
        return None
    line = re.compile(rb"(?<![\w$-])" + name.encode() + parameters + rb"\s*;")
    changed = {
        path: line.sub(lambda match: b"\n" * match[0].count(b"\n"), text)
        for path, text in files.items()
        if line.search(text)
    }
    note = f"{name} ({where}): not in the lab's nginx, left out"
    return Fix(files=changed, note=note) if changed else None


def shared_folder(path: str) -> Mount:
    """An empty folder in memory for containers that share it; it is removed with the last."""
    options = {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777"}
    return Mount(path, None, type="volume", driver_config=DriverConfig("local", options))


def packed(files: Mapping[str, bytes], folders: Sequence[str], links: Mapping[str, str]) -> bytes:
    """A tar of files, folders, and symbolic links with their targets, owned by nginx's user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder in folders:
            archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for path, content in files.items():
            entry = _entry(path.lstrip("/"), tarfile.REGTYPE, 0o644)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for path, target in links.items():
            entry = _entry(path.lstrip("/"), tarfile.SYMTYPE, 0o777)
            entry.linkname = target
            archive.addfile(entry)
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    entry.uid = entry.gid = NGINX_USER
    return entry


def near_end(number: int, other: str) -> str:
    """The address of nginx's end of the veth pair for the stub backend at `other`.

    From the ranges for benchmarks and for private use: RFC 2544, RFC 4193.
    """
    if ":" in other:
        return f"fd00:6c61:62::{number:x}"
    return f"198.19.{number >> 8}.{number & 255}"


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
