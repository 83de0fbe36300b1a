"""Commands in containers, over shells that stay open."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nginx_llm_lab.pytest_plugin import LiveLab
from nginx_llm_lab.stack import compose, faults, session
from nginx_llm_lab.stack.session import KILLED, Executed
from nginx_llm_lab.stack.shell import CommandError

SHELLS = 'n=0; for c in /proc/[0-9]*/cmdline; do [ "$(tr -d "\\0" < $c)" = sh ] && n=$((n+1)); done'


@pytest.fixture
def nginx(lab: LiveLab) -> str:
    """The id of nginx's container."""
    return compose.running_id(lab.lab, "nginx")


def run(container: str, script: str) -> Executed:
    """Run a script in a container."""
    return session.execute(container, ["sh", "-c", script], 30)


@pytest.mark.parametrize(
    ("script", "executed"),
    [
        ("true", Executed(0, b"", b"")),
        ("printf out; printf err >&2; exit 3", Executed(3, b"out", b"err")),
        ("printf '\\n\\n1\\n'", Executed(0, b"\n\n1\n", b"")),
        ("printf '\\377\\0'", Executed(0, b"\xff\x00", b"")),
        ("cat", Executed(0, b"", b"")),  # no input, and the next command is not read as input
        ("kill -9 $$", Executed(KILLED, b"", b"Killed\n")),
    ],
)
def test_output_errors_and_exit_code_are_the_commands(
    nginx: str, script: str, executed: Executed
) -> None:
    """Byte by byte; each stream by itself."""
    assert run(nginx, script) == executed


def test_words_reach_the_command_as_they_are(nginx: str) -> None:
    """The shell takes nothing out of them, nor does it end a line at theirs."""
    words = ["a b", "c'd", '"$HOME"', "e\nf", "", "*", "\udcff"]

    executed = session.execute(nginx, ["printf", "%s|", *words], 30)

    assert executed.stdout == b'a b|c\'d|"$HOME"|e\nf||*|\xff|'


def test_input_reaches_the_command_as_it_is(nginx: str) -> None:
    """A megabyte with all that a shell would read; without input there is none."""
    text = '\'"$HOME" \\n \n %s ü' * 40_000

    assert session.execute(nginx, ["cat"], 30, text).stdout.decode() == text
    assert session.execute(nginx, ["cat"], 30).stdout == b""


def test_a_long_output_is_complete(nginx: str) -> None:
    """3 MB come in many pieces."""
    assert run(nginx, "head -c 3000000 /dev/zero").stdout == bytes(3_000_000)


def test_commands_one_after_the_other_share_a_shell(nginx: str) -> None:
    """A hundred of them leave one shell more, if any."""
    count = f"{SHELLS}; echo $n"
    before = int(run(nginx, count).stdout)
    for _ in range(100):
        run(nginx, "true")

    assert int(run(nginx, count).stdout) == before


def test_commands_at_once_do_not_wait_for_each_other(nginx: str) -> None:
    """Eight commands, each of which waits until all have begun."""
    meeting = threading.Barrier(8, timeout=30)

    def number(n: int) -> bytes:
        meeting.wait()
        return run(nginx, f"sleep 0.2; echo {n}").stdout

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(number, range(8))) == [b"%d\n" % n for n in range(8)]


def test_a_silent_command_times_out_and_the_next_one_works(nginx: str) -> None:
    """Its session is closed, since its output would come later."""
    with pytest.raises(CommandError, match=r"timed out after 0\.5 s"):
        session.execute(nginx, ["sleep", "3"], 0.5)

    assert run(nginx, "echo next").stdout == b"next\n"


def test_a_container_that_started_again_has_a_new_shell(lab: LiveLab) -> None:
    """The shell ended with the container, whose id stays; what it ran ends as killed."""
    backend = compose.running_id(lab.lab, "backend-3")
    assert run(backend, "echo before").stdout == b"before\n"

    with ThreadPoolExecutor(1) as thread:
        cut_off = thread.submit(run, backend, "echo begun; sleep 60")
        faults.fault(lab.lab, "backend-3", "restart")
        faults.heal(lab.lab)

    assert cut_off.result() == Executed(KILLED, b"begun\n", b"")
    assert run(backend, "echo after").stdout == b"after\n"
