"""Install and unpack packages of Debian and Ubuntu; standard library only."""

import os
import shutil
import sys
from pathlib import Path

from ..errors import LabError
from ..paths import SETUP
from ..stack.shell import run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def available() -> bool:
    """Whether packages can be installed here: apt, and root or sudo."""
    return bool(shutil.which("apt-get")) and (os.geteuid() == 0 or bool(shutil.which("sudo")))


def as_root() -> list[str]:
    """The prefix to run a command as root; sudo may ask for a password only on a terminal."""
    if os.geteuid() == 0:
        return []
    return ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]


def install(*packages: str) -> None:
    """Install packages without recommended ones; LabError if that fails."""
    if not available():
        raise LabError(
            f"{' '.join(packages)} cannot be installed without apt and root (or sudo)",
            f"install {' '.join(packages)} yourself, then {SETUP}",
        )
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    apt_get = [*as_root(), "apt-get", "-q", "-y"]
    run([*apt_get, "update"], env=environment, check=False)
    command = [*apt_get, "install", "--no-install-recommends", *packages]
    installed = run(command, env=environment, check=False)
    if installed.returncode != 0:
        reason = "\n".join((installed.stderr or installed.stdout).strip().splitlines()[-4:])
        raise LabError(
            f"apt-get install {' '.join(packages)} failed:\n{reason}",
            f"check the network and the machine's apt sources, then {SETUP}",
        )


def candidate(package: str) -> str:
    """The version that apt would install, or "" if there is none."""
    policy = run(["apt-cache", "policy", package], check=False).stdout
    lines = [line.split(":", 1)[1].strip() for line in policy.splitlines() if "Candidate:" in line]
    version = lines[0] if lines and lines[0] != "(none)" else ""
    return version.split(":", 1)[-1]


def unpack(package: str, suite: str, folder: Path) -> Path:
    """Download a package of another Debian suite and unpack it in `folder`; needs no root.

    Returns the folder that holds the package's files.
    """
    for part in ("lists/partial", "cache/archives/partial", "unpacked"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    sources = folder / "sources.list"
    sources.write_text(source_line(suite) + "\n")
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    apt_get = ["apt-get", "-q"] + [
        arg for pair in options.items() for arg in ("-o", "{}={}".format(*pair))
    ]
    run([*apt_get, "update"], cwd=folder)
    run([*apt_get, "download", package], cwd=folder)
    archive = max(folder.glob(f"{package}_*.deb"), key=lambda file: file.stat().st_mtime)
    run(["dpkg-deb", "-x", str(archive), str(folder / "unpacked")])
    return folder / "unpacked"


def source_line(suite: str) -> str:
    """A one-line apt source for another Debian suite, from the mirror that this machine uses."""
    uri, options = mirror()
    return f"deb {options}{uri} {suite} main"


def mirror() -> tuple[str, str]:
    """The address of the Debian mirror that this machine uses, and the options of its apt source.

    LabError if no apt source has this machine's suite.
    """
    codename = release().get("VERSION_CODENAME", "")
    for entry in entries():
        if codename in entry["Suites"].split() and "main" in entry["Components"].split():
            signed = entry.get("Signed-By", "")
            keyring = signed if signed.startswith("/") else KEYRING
            options = f"[signed-by={keyring}] " if Path(keyring).exists() else ""
            return entry["URIs"].split()[0], options
    raise LabError(
        f'no apt source for "{codename}" main on this machine',
        "run this on Debian 12 or newer, or install the Compose v2 plugin yourself",
    )


def release() -> dict[str, str]:
    """The values of /etc/os-release, by name."""
    lines = Path("/etc/os-release").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value.strip('"') for name, value in pairs}


def entries(folder: Path = Path("/etc/apt")) -> list[dict[str, str]]:
    """The fields of every binary apt source of this machine, in either format of the files."""
    sources: list[dict[str, str]] = []
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*"))]
    for file in files:
        if file.suffix == ".sources":
            sources += deb822(file.read_text())
        elif file.suffix == ".list" and file.exists():
            sources += one_line(file.read_text())
    return [entry for entry in sources if "Suites" in entry and "Components" in entry]


def deb822(text: str) -> list[dict[str, str]]:
    """The fields of each enabled stanza for binary packages in a .sources file."""
    stanzas = []
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            if line.startswith("#") or ":" not in line or line[:1].isspace():
                continue
            name, value = line.split(":", 1)
            fields[name.strip()] = value.strip()
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") != "no":
            stanzas.append(fields)
    return stanzas


def one_line(text: str) -> list[dict[str, str]]:
    """The fields of each line for binary packages in a .list file."""
    sources = []
    for line in text.splitlines():
        if not line.startswith("deb "):
            continue
        source = line[4:].strip()
        signed = ""
        if source.startswith("["):
            options, source = source[1:].split("]", 1)
            signed = next((o[10:] for o in options.split() if o.startswith("signed-by=")), "")
        words = source.split()
        if len(words) >= 3:
            fields = {"URIs": words[0], "Suites": words[1], "Components": " ".join(words[2:])}
            sources.append({**fields, "Signed-By": signed} if signed else fields)
    return sources
