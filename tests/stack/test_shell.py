"""Commands are run, and failures are reported."""

import signal
import sys
from pathlib import Path

import pytest

from nginx_llm_lab.stack.shell import CommandError, run, works


def test_output_is_text():
    """Bytes that are not UTF-8 come out as surrogates."""
    done = run([sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'a\\xff')"])

    assert done.stdout == "a\udcff"


def test_a_failure_shows_the_command_and_its_last_output():
    """And its exit code."""
    with pytest.raises(CommandError) as caught:
        run([sys.executable, "-c", "import sys; sys.exit('broken')"])

    assert caught.value.returncode == 1
    assert "broken" in caught.value.message


def test_a_command_that_is_not_there_is_an_error_too():
    """Not a traceback."""
    with pytest.raises(CommandError, match="command not found"):
        run(["no-such-command-anywhere"])

    assert not works(["no-such-command-anywhere"])


def test_a_command_that_exceeds_its_timeout_is_killed():
    """In time."""
    with pytest.raises(CommandError, match="timed out after"):
        run(["tail", "-f", "/dev/null"], timeout=0.3)


def test_a_command_may_clean_up_when_the_lab_is_interrupted(tmp_path: Path):
    """It is killed only when its time is over."""
    cleaned = tmp_path / "cleaned"
    script = (
        "import os, pathlib, signal, sys, time\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(0.5)\n"
        "pathlib.Path(sys.argv[1]).touch()"
    )

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    try:
        with pytest.raises(KeyboardInterrupt):
            run([sys.executable, "-c", script, str(cleaned)], grace=60)
    finally:
        signal.signal(signal.SIGINT, before)

    assert cleaned.exists()
