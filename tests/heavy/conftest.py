"""Long tests share a lab of five backends."""

import os
import sys

import pytest

from nginx_llm_lab.experiment import fleet
from nginx_llm_lab.pytest_plugin import LiveLab
from nginx_llm_lab.stack import compose
from tests.live.conftest import inside, no_alarms, pytest_runtest_makereport

__all__ = ["five", "inside", "no_alarms", "pytest_runtest_makereport", "say"]


@pytest.fixture(scope="session")
def five():
    """Five backends behind nginx, under a project name of their own."""
    here = compose.Lab(f"lab-heavy-{os.getpid()}", compose.free_port(), compose.free_port())
    fleet.up(here, 5)
    try:
        yield LiveLab(here)
    finally:
        compose.down(here)


@pytest.fixture
def say(capsys):
    """Print a line of figures that is shown even if the test passes."""

    def line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"{text}\n")

    return line
