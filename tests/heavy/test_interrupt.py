"""Ctrl-C and SIGTERM while a long verb works: it leaves nothing, and the next command works."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nginx_llm_lab.accounts import judging, outcome
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence import folder
from nginx_llm_lab.experiment import fleet
from nginx_llm_lab.paths import ROOT, runs_folder
from nginx_llm_lab.pytest_plugin import LiveLab
from nginx_llm_lab.stack import compose, nginx
from nginx_llm_lab.stack.sdk import engine
from nginx_llm_lab.stack.shell import poll
from nginx_llm_lab.verify.sandbox.containers import LABEL
from nginx_llm_lab.word import Word

MOMENTS = int(os.environ.get("LAB_INTERRUPT_MOMENTS", "1"))  # ten for the full proof
CONF = ROOT / "tests/data/verify/vllm-compose.conf"
END_SECONDS = 60
KEEP = frozenset({"run", "run by ab", "load", "soak"})  # the verbs that keep what they saw
# the seconds of each verb over which the signals are spread, and its words
VERBS: Mapping[str, tuple[float, str]] = {
    "run": (8, "run least_conn -n 20000"),
    "run by ab": (8, "run round_robin --ab -n 20000"),
    "ab": (6, "ab -n 200000"),
    "load": (12, "load uniform_chat --duration 60"),
    "soak": (15, "soak --seconds 60"),
    "stress": (8, "stress --chats 9000 --completions 9000"),
    "verify": (4, f"verify {CONF}"),
    "up": (8, "up --backends 6 --profile h100-8b"),
    "compare": (12, "compare uniform_chat --methods round_robin,least_conn --duration 30"),
    "simulate": (8, "simulate uniform_chat --backends 64 --requests 200000"),
    "demo": (15, "demo"),
    "bench": (12, "bench --quick"),
}


@pytest.fixture(scope="module", autouse=True)
def restored(five: LiveLab) -> Iterator[None]:
    """The lab has five backends of the usual timing again when these tests have ended."""
    yield
    fleet.up(five.lab, 5, "instant", 1.0)


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run folders of these tests only: other tests may run beside them."""
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))


def lab(five: LiveLab, words: str) -> subprocess.Popen[str]:
    """Start `lab` on the tests' lab; one process, as a terminal or a CI job starts it.

    A shell starts a background job, and all its children, with Ctrl-C ignored.
    """
    names = {"LAB_PROJECT": five.lab.project}
    ports = {"LAB_PORT": str(five.lab.port), "LAB_DOOR_PORT": str(five.lab.door_port)}
    return subprocess.Popen(
        [sys.executable, "-m", "nginx_llm_lab.cli", *words.split()],
        env={**os.environ, **names, **ports},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def interrupted(
    five: LiveLab, words: str, after: float, number: signal.Signals
) -> tuple[str, bool]:
    """Signal a command `after` seconds.

    Its output, once it has ended as documented, and whether it had sent requests by then.
    """
    mark = nginx.log_size(five.lab)
    process, sent = lab(five, words), False
    try:
        process.wait(after)
        allowed = {0, 1}
    except subprocess.TimeoutExpired:
        sent = nginx.log_size(five.lab) > mark
        process.send_signal(number)
        # a signal that comes before Python can handle it ends the process as any other
        allowed = {{signal.SIGINT: 130, signal.SIGTERM: 143}[number], -number}
    try:
        output, errors = process.communicate(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode in allowed, f"{process.returncode}\n{errors}"
    noise = [word for word in ("Traceback", "nhandled", "never retrieved") if word in errors]
    assert not noise or process.returncode == -number, errors
    return output + errors, sent and process.returncode != -number


def left_behind(five: LiveLab, verb: str) -> list[str]:
    """Everything that an interrupted command left: processes, containers, broken run folders."""
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null"
    processes = compose.execute(five.lab, "load", ["sh", "-c", script]).splitlines()
    left = [line for line in processes if line.startswith("ab ")]
    if verb == "verify":
        containers = engine().containers.list(
            all=True, filters={"label": LABEL}, ignore_removed=True
        )
        left += [str(container.name) for container in containers]
    left += ["the debug log is on"] if nginx.tracing(five.lab) else []
    return left + [str(place) for place in folders() if not is_readable(place)]


def folders() -> set[Path]:
    """The run folders, half-written ones too."""
    return {place for place in runs_folder().glob("*") if place.is_dir()}


def is_readable(place: Path) -> bool:
    """Whether a run folder is complete; those of a comparison and a simulation hold no logs."""
    if "compare" in place.name:
        return True
    try:
        if folder.is_simulated(place):
            return bool(json.loads((place / "figures.json").read_text()))
        folder.read(place)
    except (OSError, UsageError):
        return False
    return True


def is_wrong(judged: outcome.AnyOutcome) -> bool:
    """Whether the verdict on an interrupted run accuses nginx."""
    if isinstance(judged, outcome.Soaked):
        return not judged.ledger.holds
    return judged.verdict.word == Word.FAIL


@pytest.mark.parametrize("verb", VERBS)
def test_an_interrupted_verb_leaves_nothing(five: LiveLab, verb: str) -> None:
    """At spread moments, by SIGINT and SIGTERM in turn; the next command works.

    What a run, a load and a soak had seen by then is in a folder, which can be judged.
    """
    seconds, words = VERBS[verb]
    for moment in range(MOMENTS):
        number = signal.SIGTERM if moment % 3 == 2 else signal.SIGINT
        had = folders()
        output, sent = interrupted(five, words, seconds * (moment + 0.5) / MOMENTS, number)
        left = poll(lambda: left_behind(five, verb), lambda left: not left, END_SECONDS)
        assert not left, f"moment {moment}: {left}\n{output}"
        kept = [judging.judge(place) for place in folders() - had] if verb in KEEP else []
        assert kept or not sent or verb not in KEEP, f"moment {moment}: no folder\n{output}"
        assert not [str(path) for path in kept if is_wrong(path)], f"moment {moment}\n{output}"

        process = lab(five, "up --backends 5" if verb == "up" else "use least_conn")
        told, errors = process.communicate(timeout=120)
        assert process.returncode == 0, f"after moment {moment}: {told}{errors}"
