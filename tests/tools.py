"""Clients and load tools made elsewhere, installed apart from this project's own packages."""

import sys
from pathlib import Path

import pytest

from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack.shell import CommandError, run


def environment(lock: Path) -> dict[str, str]:
    """The variables with which Python imports what a lock file names.

    The packages are in a folder below .lab, kept until the lock file changes. Skips the test where
    they cannot be installed.
    """
    folder = ROOT / ".lab/tools" / lock.stem
    installed = folder / lock.name
    if not installed.is_file() or installed.read_bytes() != lock.read_bytes():
        words = ["install", "-q", "--no-deps", "--require-hashes", "--upgrade"]
        try:
            run([sys.executable, "-m", "pip", *words, "--target", str(folder), "-r", str(lock)])
        except CommandError as error:
            pytest.skip(f"{lock.name} cannot be installed: {error.stderr.strip()[-200:]}")
        installed.write_bytes(lock.read_bytes())
    return {"PYTHONPATH": str(folder)}
