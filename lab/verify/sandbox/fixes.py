"""Fix what nginx lacks, by its error messages; say what the user can do about the others."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ...nginxconf.upstream import COMMERCIAL
from ...nginxconf.upstream import hint_on as hint_on_directive
from ..survey.prerequisites import Prerequisite, absent_file, absent_module, unresolved

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
