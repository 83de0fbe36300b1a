"""The files that nginx reads: the user's own, unchanged, and those that the lab supplies."""

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
from .survey import Survey, directives, is_whole
from .survey.relocation import Move, rewritten
from .traffic import entrances, templates

INSTALLED = "/etc/nginx"
# what nginx's packages and images have around a file of conf.d, as far as it matters
WHOLE = 'worker_processes auto;\nevents {{}}\nhttp {{ include "{}"; }}\n'
MAIN = ".main"  # what the name of that file ends with
LARGEST = 16_000_000  # bytes of a file that nginx asks for
SERVER = re.compile(rb"\bserver(?:\s|#[^\n]*\n)*\{")
IMPORT = re.compile(rb"""\bimport\s+[\w{}*,\s]+?\s+from\s+['"]([^'"]+)['"]""")
INCLUDE = re.compile(rb"^[ \t]*include[ \t]+([^;\s]+)[ \t]*;", re.MULTILINE)


def is_stream(conf: Path) -> bool:
    """Whether a config can be read only once: "-", /dev/stdin, a pipe."""
    return str(conf) == "-" or (conf.exists() and not (conf.is_file() or conf.is_dir()))


@contextmanager
def copy_of_stream(conf: Path) -> Iterator[Path]:
    """Context: a copy of such a config."""
    try:
        content = sys.stdin.buffer.read() if str(conf) == "-" else conf.read_bytes()
    except OSError as error:
        raise UsageError(f"{conf}: {error.strerror}", "name an nginx config file") from None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nginx.conf"
        copy.write_bytes(content)
        yield copy


def files_by_path(config: Config, conf: Path, moves: Sequence[Move] = ()) -> dict[str, bytes]:
    """Every file of the config by the path at which nginx looks for it, with its listeners moved.

    Files beside `conf` are also laid under /etc/nginx, where its includes may look for them.
    """
    contents: dict[str, bytes] = {}
    unheard = servers_without_listen(config)
    for name in user_names(config, conf):
        path = absolute(name)
        content = rewritten(Path(name).read_bytes(), [move for move in moves if move.file == name])
        content = with_listen(content, unheard.get(name, {}))
        contents[path] = content
        if path.startswith(f"{absolute(conf.parent)}/"):
            beside = path.removeprefix(f"{absolute(conf.parent)}/")
            contents.setdefault(f"{INSTALLED}/{beside}", content)
    return contents


def njs_modules(config: Config, conf: Path) -> dict[str, bytes]:
    """The user's njs modules of `js_import`, and those that they import, by nginx's path."""
    lines = [line for line in directives(config) if line.args]
    folders = ["", *(line.args[0] for line in lines if line.name == "js_path")]
    wanted = [line.args[-1] for line in lines if line.name == "js_import"]
    modules: dict[str, bytes] = {}
    for name in wanted:  # grows as modules are read
        for path in (absolute(conf.parent / folder / name) for folder in folders):
            content = own_file(path, conf)
            if content is not None and path not in modules:
                modules[path] = content
                wanted += [each.decode("utf-8", "replace") for each in IMPORT.findall(content)]
    return modules


def servers_without_listen(config: Config) -> dict[str, dict[int, list[bool]]]:
    """By file and line, for each `server` block that begins there, whether it has no `listen`."""
    blocks: dict[str, dict[int, list[bool]]] = {}
    for server in config.block("http").all("server"):
        lines = blocks.setdefault(server.file, {})
        lines.setdefault(server.line, []).append(not server.all("listen"))
    return blocks


def with_listen(content: bytes, servers: Mapping[int, Sequence[bool]]) -> bytes:
    """A file in which servers without `listen` have `listen 80`, as nginx assumes as root.

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


def user_names(config: Config, conf: Path) -> tuple[str, ...]:
    """The names of the config's files, relative to the path that the user gave."""
    return tuple(dict.fromkeys([str(conf), *config.files]))


def absolute(path: str | Path) -> str:
    """A path as it is passed to nginx: absolute, with its symbolic links."""
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow the links


def main_file(config: Config, conf: Path) -> tuple[str, dict[str, bytes]]:
    """The path of nginx's main file, and its content if the lab has to write it.

    A config without `http` is one that packages include inside theirs, from conf.d: it is included
    from a file beside it that does so.
    """
    path = absolute(conf)
    if is_whole(config):
        return path, {}
    main = f"{path}{MAIN}"
    return main, {main: WHOLE.format(path).encode("utf-8", "surrogateescape")}


def unmatched_includes(config: Config, conf: Path) -> Iterator[str]:
    """The includes with a pattern that matches no file; nginx ignores them silently."""
    for name in user_names(config, conf):
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
    """The content of the user's file that nginx needs; None if it cannot be read."""
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
    users = "".join(f"{user}:{{PLAIN}}{user}\n" for user in templates.USERS)
    files = {_at(line.args[0], conf): pem.encode() for line in survey.certificates}
    return files | {_at(line.args[0], conf): users.encode() for line in survey.logins}


def _at(path: str, conf: Path) -> str:
    """The path at which nginx looks for a file; relative ones are beside its config."""
    return absolute(conf.parent / path)


def certificate(survey: Survey) -> str:
    """A key and a certificate for every name of the config, in one text; empty without TLS."""
    spoken = any(entrances.is_tls(endpoint) for endpoint in survey.listens) or any(
        endpoint.tls for endpoint in survey.endpoints
    )
    if not spoken and not survey.certificates:
        return ""
    names = [f"DNS:{name}" for name in (*survey.names, *survey.tls_names)] + [
        f"IP:{endpoint.host}" for endpoint in survey.endpoints if not endpoint.socket
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
