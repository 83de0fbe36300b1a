"""Run times of lab commands, and of `lab split`, awk's pipeline and GoAccess in turn."""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from ..evidence import ab_report
from ..evidence.folder import AB
from ..nginxconf.methods import DEFAULT
from ..paths import INSTALLED, ROOT
from ..stack.compose import Lab
from ..stack.shell import run, works
from .figures import Series, ratio

LINE = (
    b"10.0.%d.%d:52344 /chat/%d - - [25/Nov/2026:12:00:00 +0000] "
    b'"POST /chat/%d HTTP/1.0" 200 186 "-" "ApacheBench/2.3" "-" to: 172.20.0.%d:8000\n'
)
EVIDENCE = (
    b'{"msec":"1795608000.123","request_time":"0.002","request_id":"%032x",'
    b'"remote_addr":"10.0.%d.%d","request_method":"POST","request_uri":"/chat/%d",'
    b'"hash_key":"","http_cookie":"","status":"200","bytes_sent":"391","pid":"21",'
    b'"server_port":"8081","connection":"%d","connection_requests":"1",'
    b'"upstream_addr":"172.20.0.%d:8000","upstream_status":"200",'
    b'"upstream_connect_time":"0.000","upstream_header_time":"0.001",'
    b'"upstream_response_time":"0.001"}\n'
)
SWITCH = "lab use least_conn"
GRACE = 60  # seconds for which an interrupted bench waits for a command of the lab to end
GOACCESS = '%h:%^ %U - %^ [%d:%t %^] "%r" %s %b "%R" "%u" "%^" to: %v'


@dataclass(frozen=True, slots=True)
class CommandTimes:
    """Wall-clock and CPU seconds of a command, its children included."""

    wall: float
    cpu: float


def lab_command(*words: str) -> list[str]:
    """The command `lab` of the Python that runs this."""
    return [sys.executable, "-m", f"{__package__.partition('.')[0]}.cli", *words]


def timed(command: Sequence[str], env: Mapping[str, str] | None = None) -> CommandTimes:
    """Run a command to its end; raises CommandError when it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run(command, env=env, cwd=ROOT, grace=GRACE)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return CommandTimes(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def by_turns(commands: Mapping[str, list[str]], repeats: int) -> dict[str, list[CommandTimes]]:
    """Run every command once, then every command again, `repeats` times."""
    took: dict[str, list[CommandTimes]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            took[name].append(timed(command))
    return took


def measure(lab: Lab | None, repeats: int, note: Callable[[str], None]) -> Iterator[Series]:
    """The lab's own commands; those that need containers only where there is a running `lab`."""
    note("commands: --help, split, status, use, set-up")
    with TemporaryDirectory() as folder:
        small = Path(folder) / "small.log"
        small.write_bytes(b"".join(article_lines(10)))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "lab --help": lab_command("--help"),
            "lab split of 10 lines": lab_command("split", str(small)),
        }
        if lab:
            commands["lab status"] = lab_command("status")
            commands[SWITCH] = lab_command(*SWITCH.split()[1:])
        if lab and not INSTALLED:
            commands["set-up, nothing to do"] = [sys.executable, "-m", "lab.setup"]
        for name, took in by_turns(commands, repeats).items():
            yield series("time of a command", name, (turn.wall for turn in took))
            yield series("CPU of a command", name, (turn.cpu for turn in took))
    if lab:
        note("commands: run")
        yield series(
            "time of lab run beyond its traffic",
            f"{DEFAULT.name}, 1,000 requests",
            (overhead_of_run() for _ in range(repeats)),
        )


def overhead_of_run() -> float:
    """The seconds that `lab run` takes in addition to the time that ab reports."""
    start = time.perf_counter()
    command = lab_command("run", DEFAULT.name, "-n", "1000", "--json")
    printed = run(command, check=False, grace=GRACE).stdout
    wall = time.perf_counter() - start
    report = ab_report.parse((Path(json.loads(printed)["folder"]) / AB).read_text())
    return wall - report.time_taken_s


def series(what: str, subject: str, seconds: Iterable[float]) -> Series:
    """A series of this section."""
    return Series("commands", what, subject, "s", tuple(seconds))


def counting(lines: int, repeats: int, note: Callable[[str], None]) -> Iterator[Series]:
    """The times of `lab split`, awk's pipeline and GoAccess (if installed) on the same log."""
    note(f"counting: {lines:,} lines")
    with TemporaryDirectory() as folder:
        log, evidence = Path(folder) / "access.log", Path(folder) / "access.jsonl"
        for path, content in ((log, article_lines(lines)), (evidence, evidence_lines(lines))):
            with path.open("wb") as stream:
                stream.writelines(content)
        awk = f"awk '{{print $NF}}' {log} | sort | uniq -c"
        commands = {
            "awk | sort | uniq, article's format": ["sh", "-c", awk],
            "lab split, article's format": lab_command("split", str(log)),
            "lab split, JSON evidence": lab_command("split", str(evidence)),
        }
        if which("goaccess"):
            words = ["goaccess", str(log), "-o", f"{folder}/out.json", "--no-global-config"]
            formats = [f"--log-format={GOACCESS}", "--date-format=%d/%b/%Y", "--time-format=%T"]
            if works([*words, *formats]):
                commands["goaccess, article's format"] = [*words, *formats]
        counted = {
            name: Series("counting", "time to count", name, "s", tuple(turn.wall for turn in took))
            for name, took in by_turns(commands, repeats).items()
        }
    yield from counted.values()
    pipeline = counted.pop("awk | sort | uniq, article's format")
    for name, times in counted.items():
        if name.startswith("lab"):
            yield ratio("time of awk's pipeline", name, times, pipeline)


def article_lines(number: int) -> Iterator[bytes]:
    """Lines of the article's format, with three servers in turn."""
    for n in range(number):
        yield LINE % (n >> 8 & 255, n & 255, n % 1000, n % 1000, 2 + n % 3)


def evidence_lines(number: int) -> Iterator[bytes]:
    """Lines of the lab's JSON access log, with three servers in turn."""
    for n in range(number):
        yield EVIDENCE % (n, n >> 8 & 255, n & 255, n % 1000, n, 2 + n % 3)
