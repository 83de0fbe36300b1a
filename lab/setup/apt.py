"""Debian's and Ubuntu's package manager, as set-up needs it; standard library only."""

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
    """The prefix that makes a command run as root; sudo may ask only where there is a terminal."""
    if os.geteuid() == 0:
        return []
    return ["sudo"] if sys.stdin.isatty() else ["sudo", "-n"]


def install(*packages: str) -> None:
    """Install packages, without what they merely recommend."""
    if not available():
        raise LabError(
            f"{' '.join(packages)} cannot be installed without apt and root (or sudo)",
            f"install {' '.join(packages)} yourself, then {SETUP}",
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    get = [*as_root(), "apt-get", "-q", "-y"]
    run([*get, "update"], env=quiet, check=False)
    done = run([*get, "install", "--no-install-recommends", *packages], env=quiet, check=False)
    if done.returncode != 0:
        reason = "\n".join((done.stderr or done.stdout).strip().splitlines()[-4:])
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
    """Download `package` of another Debian suite and unpack it under `folder`; needs no root."""
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
    get = ["apt-get", "-q"] + [
        arg for pair in options.items() for arg in ("-o", "{}={}".format(*pair))
    ]
    run([*get, "update"], cwd=folder)
    run([*get, "download", package], cwd=folder)
    archive = max(folder.glob(f"{package}_*.deb"), key=lambda file: file.stat().st_mtime)
    run(["dpkg-deb", "-x", str(archive), str(folder / "unpacked")])
    return folder / "unpacked"


def source_line(suite: str) -> str:
    """A one-line apt source for another Debian suite, through this machine's own mirror."""
    uri, options = mirror()
    return f"deb {options}{uri} {suite} main"


def mirror() -> tuple[str, str]:
    """The address of this machine's Debian mirror and its options, from the apt sources."""
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
    """What /etc/os-release says of this machine."""
    lines = Path("/etc/os-release").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value.strip('"') for name, value in pairs}


def entries(folder: Path = Path("/etc/apt")) -> list[dict[str, str]]:
    """Every binary apt source of this machine, in either format."""
    sources: list[dict[str, str]] = []
    files = [folder / "sources.list", *sorted(folder.glob("sources.list.d/*"))]
    for file in files:
        if file.suffix == ".sources":
            sources += deb822(file.read_text())
        elif file.suffix == ".list" and file.exists():
            sources += one_line(file.read_text())
    return [entry for entry in sources if "Suites" in entry and "Components" in entry]


def deb822(text: str) -> list[dict[str, str]]:
    """Stanzas of a .sources file that name binary packages."""
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
    """Entries of a sources.list file, with their signed-by option."""
    sources = []
    for line in text.splitlines():
        if not line.startswith("deb "):
            continue
        rest = line[4:].strip()
        signed = ""
        if rest.startswith("["):
            options, rest = rest[1:].split("]", 1)
            signed = next((o[10:] for o in options.split() if o.startswith("signed-by=")), "")
        words = rest.split()
        if len(words) >= 3:
            fields = {"URIs": words[0], "Suites": words[1], "Components": " ".join(words[2:])}
            sources.append({**fields, "Signed-By": signed} if signed else fields)
    return sources
