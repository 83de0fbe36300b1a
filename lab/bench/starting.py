"""The time of `lab up`, cold and warm, against Compose alone; and of `lab verify` per upstream."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..stack import compose
from ..stack.compose import Lab
from .commands import lab_command, timed
from .figures import Series, ratio

UPSTREAMS = 3  # of the larger configuration; the smaller one has one


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds to start the containers, and to run the same command again while they run."""

    cold: float
    warm: float


def measure(lab: Lab, repeats: int, note: Callable[[str], None]) -> Iterator[Series]:
    """Time `lab up` and `docker compose up -d --wait` in turn, as another lab."""
    spare = Lab(f"{lab.project}-bench", compose.free_port(), compose.free_port())
    starts: dict[str, list[Start]] = {"lab up": [], "docker compose up --wait": []}
    for number in range(repeats):
        note(f"starting: turn {number + 1} of {repeats}")
        starts["lab up"].append(start_lab(spare))
        starts["docker compose up --wait"].append(start_compose(spare))
    cold = {
        name: series("cold start", name, [start.cold for start in times])
        for name, times in starts.items()
    }
    warm = {
        name: series("warm start", name, [start.warm for start in times])
        for name, times in starts.items()
    }
    yield from cold.values()
    yield from warm.values()
    yield ratio("time of Compose alone", "lab up, cold", *cold.values())
    yield ratio("time of Compose alone", "lab up, warm", *warm.values())


def start_lab(lab: Lab) -> Start:
    """Start a lab twice with `lab up`, and take it down."""
    return started_twice(lab, lab_command("up"))


def start_compose(lab: Lab) -> Start:
    """Start a lab twice with Compose alone, and take it down."""
    return started_twice(lab, compose.command(lab, "up", "-d", "--wait"))


def started_twice(lab: Lab, command: list[str]) -> Start:
    """The times of a start, and of the same command while everything runs; then `down`."""
    env = {
        "LAB_PROJECT": lab.project,
        "LAB_PORT": str(lab.port),
        "LAB_DOOR_PORT": str(lab.door_port),
    }
    try:
        return Start(timed(command, env).wall, timed(command, env).wall)
    finally:
        compose.down(lab)


def verify(repeats: int, note: Callable[[str], None]) -> Iterator[Series]:
    """The time of `lab verify`: of a configuration with one upstream, and of each further one."""
    with TemporaryDirectory() as folder:
        confs = {number: write_conf(Path(folder), number) for number in (1, UPSTREAMS)}
        took: dict[int, list[float]] = {number: [] for number in confs}
        for turn in range(repeats):
            note(f"verify: turn {turn + 1} of {repeats}")
            for number, conf in confs.items():
                took[number].append(timed(lab_command("verify", "--allow-unsure", conf)).wall)
    further = [
        (many - one) / (UPSTREAMS - 1) for one, many in zip(took[1], took[UPSTREAMS], strict=True)
    ]
    for subject, seconds in (("one upstream", took[1]), ("each further upstream", further)):
        yield Series("verify", "time of lab verify", subject, "s", tuple(seconds))


def write_conf(folder: Path, upstreams: int) -> str:
    """Write an nginx.conf with this number of upstreams of three servers each; return its path."""
    groups = "".join(
        f"upstream u{n} {{ zone u{n} 64k; "
        + "".join(f"server 10.1.{n}.{server}:8000; " for server in (1, 2, 3))
        + "}\n"
        for n in range(upstreams)
    )
    places = "".join(f"location /u{n}/ {{ proxy_pass http://u{n}; }}\n" for n in range(upstreams))
    conf = folder / f"nginx-{upstreams}.conf"
    conf.write_text(f"events {{}}\nhttp {{\n{groups}server {{ listen 80;\n{places}}}\n}}\n")
    return str(conf)


def series(what: str, subject: str, seconds: list[float]) -> Series:
    """A series of this section."""
    return Series("starting", what, subject, "s", tuple(seconds))
