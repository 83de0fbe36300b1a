"""The files that nginx reads: the user's own as they are, and what the lab supplies for others."""

import glob
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import LabError, UsageError
from ..nginxconf.tree import Config
from ..stack import shell
from . import templates
from .survey import Survey, directives, is_whole

INSTALLED = "/etc/nginx"
# what nginx's packages and images have around a file of conf.d, as far as it matters
WHOLE = 'worker_processes auto;\nevents {{}}\nhttp {{ include "{}"; }}\n'
LARGEST = 16_000_000  # bytes of a file that nginx asks for
SERVER = re.compile(rb"\bserver(?:\s|#[^\n]*\n)*\{")
INCLUDE = re.compile(rb"^[ \t]*include[ \t]+([^;\s]+)[ \t]*;", re.MULTILINE)


def is_stream(conf: Path) -> bool:
    """Whether a config can be read only once: "-", /dev/stdin, a pipe."""
    return str(conf) == "-" or (conf.exists() and not (conf.is_file() or conf.is_dir()))


@contextmanager
def kept(conf: Path) -> Iterator[Path]:
    """A copy of such a config, as long as it is needed."""
    try:
        content = sys.stdin.buffer.read() if str(conf) == "-" else conf.read_bytes()
    except OSError as error:
        raise UsageError(f"{conf}: {error.strerror}", "name an nginx config file") from None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nginx.conf"
        copy.write_bytes(content)
        yield copy


def laid(config: Config, conf: Path) -> dict[str, bytes]:
    """Every file of the config by the path at which nginx looks for it.

    What stands beside `conf` is laid under /etc/nginx as well, where its includes may look for it.
    """
    contents: dict[str, bytes] = {}
    unheard = servers_without_listen(config)
    for name in own_names(config, conf):
        path, content = absolute(name), with_listen(Path(name).read_bytes(), unheard.get(name, {}))
        contents[path] = content
        if path.startswith(f"{absolute(conf.parent)}/"):
            beside = path.removeprefix(f"{absolute(conf.parent)}/")
            contents.setdefault(f"{INSTALLED}/{beside}", content)
    return contents


def servers_without_listen(config: Config) -> dict[str, dict[int, list[bool]]]:
    """By file and line, for each `server` block that begins there, whether it has no `listen`."""
    blocks: dict[str, dict[int, list[bool]]] = {}
    for server in config.block("http").all("server"):
        lines = blocks.setdefault(server.file, {})
        lines.setdefault(server.line, []).append(not server.all("listen"))
    return blocks


def with_listen(content: bytes, servers: Mapping[int, Sequence[bool]]) -> bytes:
    """A file in which servers without `listen` say so: nginx as root takes port 80, here 8000.

    Every line keeps its number.
    """
    lines = content.splitlines(keepends=True)
    for number, without in sorted(servers.items(), reverse=True):
        text = b"".join(lines[number - 1 :])
        lines = [*lines[: number - 1], _with_listen(text, without)]
    return b"".join(lines)


def _with_listen(text: bytes, without: Sequence[bool]) -> bytes:
    """The first servers of a text, those that are `without` a `listen` with one."""
    rest = iter(without)
    return SERVER.sub(
        lambda block: block[0] + b" listen 80;" if next(rest, False) else block[0],
        text,
        count=len(without),
    )


def own_names(config: Config, conf: Path) -> tuple[str, ...]:
    """The names of the config's files, as the user gave the first of them."""
    return tuple(
        dict.fromkeys(
            [str(conf), *(directive.file for directive in directives(config) if directive.file)]
        )
    )


def absolute(path: str | Path) -> str:
    """A path as nginx is told it: from the root, its symbolic links as they are."""
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow the links


def entrance(config: Config, conf: Path) -> tuple[str, dict[str, bytes]]:
    """The path of the file that nginx starts with, and that file where the lab has to write it.

    A config without `http` is one that packages include inside theirs, from conf.d: it is included
    from a file beside it that does so.
    """
    path = absolute(conf)
    if is_whole(config):
        return path, {}
    main = f"{path}.main"
    return main, {main: WHOLE.format(path).encode("utf-8", "surrogateescape")}


def absent(config: Config, conf: Path) -> Iterator[str]:
    """The includes with a pattern that fits no file: nginx passes over them without a word."""
    for name in own_names(config, conf):
        content = Path(name).read_bytes()
        for match in INCLUDE.finditer(content):
            pattern = match[1].decode("utf-8", "surrogateescape").strip("\"'")
            if glob.has_magic(pattern) and not any(_matches(pattern, conf.parent)):
                line = content.count(b"\n", 0, match.start()) + 1
                yield f"include {pattern} ({name}:{line}): no such file here"


def _matches(pattern: str, folder: Path) -> Iterator[str]:
    for choice in (pattern, pattern.removeprefix(f"{INSTALLED}/")):
        yield from glob.glob(str(folder / choice))  # noqa: PTH207 - Path.glob takes no absolute one


def own_file(path: str, conf: Path) -> bytes | None:
    """The user's own content of a file that nginx asks for; None where there is none to read."""
    choices = [Path(path)]
    if path.startswith(f"{INSTALLED}/"):
        choices.insert(0, conf.parent / path.removeprefix(f"{INSTALLED}/"))
    for choice in choices:
        try:
            if choice.is_file() and choice.stat().st_size <= LARGEST:
                return choice.read_bytes()
        except OSError:
            continue
    return None


# --- what the lab supplies ----------------------------------------------------------------


def supplied(survey: Survey, conf: Path, pem: str) -> dict[str, bytes]:
    """The lab's own certificates and users, at the paths that the config names."""
    user = ":{PLAIN}".join(templates.LOGIN).encode() + b"\n"
    files = {_at(line.args[0], conf): pem.encode() for line in survey.certificates}
    return files | {_at(line.args[0], conf): user for line in survey.logins}


def _at(path: str, conf: Path) -> str:
    """Where nginx looks for a file: relative ones beside its config."""
    return absolute(conf.parent / path)


def certificate(survey: Survey) -> str:
    """A key and a certificate for every name of the config, in one text; empty without any TLS."""
    spoken = any(templates.is_tls(endpoint) for endpoint in survey.listens) or any(
        endpoint.tls for endpoint in survey.endpoints
    )
    if not spoken and not survey.certificates:
        return ""
    names = [f"DNS:{name}" for name in survey.names] + [
        f"IP:{endpoint.host}" for endpoint in survey.endpoints
    ]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=lab", "-addext", f"subjectAltName={','.join(dict.fromkeys(names))}"]
    group = ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"]
    try:
        pem = shell.run([*words, "-keyout", "-", "-out", "-"]).stdout
    except shell.CommandError as error:
        raise LabError(
            f"no certificate could be made: {error.message}", "install openssl"
        ) from None
    # for ssl_dhparam, which few configs have: not worth a failure
    return pem + shell.run(group, check=False).stdout
