"""Commands are run, and what fails is told."""

import sys

import pytest

from nginx_llm_lab.stack.shell import CommandError, run, works


def test_output_is_text():
    """Bytes that are not UTF-8 come out as surrogates."""
    done = run([sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'a\\xff')"])

    assert done.stdout == "a\udcff"


def test_a_failure_shows_the_command_and_its_last_words():
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


def test_a_command_that_does_not_end_is_ended():
    """In time."""
    with pytest.raises(CommandError, match="no end after"):
        run(["tail", "-f", "/dev/null"], timeout=0.3)
