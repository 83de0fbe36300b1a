"""Files and commands in nginx's container; the output of its commands."""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from docker.models.containers import Container

from ...stack import session
from ...stack.session import Executed
from ...stack.shell import run

LIFE = 300  # seconds after which a sandbox's containers exit
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


@dataclass(frozen=True, slots=True)
class NginxContainer:
    """The container in which nginx runs."""

    container: Container

    def image_files(self) -> dict[str, bytes]:
        """The image's files under /etc/nginx; links are empty files."""
        stream, _ = self.container.get_archive(PREFIX)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            contents = {
                member.name: archive.extractfile(member) for member in archive if member.isreg()
            }
            links = {member.name: None for member in archive if member.issym() or member.islnk()}
            return {
                f"/etc/{name}": file.read() if file else b""
                for name, file in (contents | links).items()
            }

    def lay(
        self,
        files: Mapping[str, bytes],
        folders: Sequence[str] = (),
        links: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Copy files, folders and links into the container; nginx's user owns them."""
        self.container.put_archive("/", packed(files, folders, links))

    def write_name_files(self, names: Mapping[str, str], *, ipv6: bool) -> None:
        """Write /etc/hosts, with an address for each name, and /etc/resolv.conf."""
        lines = ["127.0.0.1 localhost"]
        lines += ["::1 localhost"] if ipv6 else []
        lines += [f"{at} {name}" for name, at in names.items() if name != "localhost"]
        text = "\n".join([*lines, ""]).encode()
        words = ["docker", "exec", "-i", "-u", "0", str(self.container.id), "sh", "-c"]
        script = f"cat > /etc/hosts; echo nameserver {NAME_SERVER} > /etc/resolv.conf"
        run([*words, script], stdin=text)

    def run(self, words: Sequence[str]) -> Executed:
        """Run a command in the container to its end."""
        return session.execute(str(self.container.id), words, LIFE)

    def lines(self, words: Sequence[str]) -> list[bytes]:
        """The lines that a command in the container prints; none where it fails."""
        executed = self.run(words)
        return [] if executed.code else executed.stdout.splitlines()

    def start(self, words: Sequence[str]) -> None:
        """Start a command in the container, without waiting for its end."""
        self.container.exec_run(list(words), detach=True)


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


def version_of(build: str) -> str:
    """The version in the output of `nginx -V`."""
    match = re.search(r"nginx/(\S+)", build)
    return match[1] if match else "?"


def warnings(lines: Sequence[str]) -> Iterator[str]:
    """nginx's warnings, except the one about not running as root."""
    for line in lines:
        warning = re.sub(r"^.*?\[warn\] (\d+#\d+: )?", "", line)
        if warning != line and '"user" directive makes sense only' not in warning:
            yield f"nginx warns: {warning}"
