"""The wheel in an empty environment, beside a `lab/` package of the stranger's own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.pytest_plugin import free_port

CONF = """
upstream llm { zone llm 64k; server gpu-1:8000 weight=2; server gpu-2:8000; }
server { listen 80; location / { proxy_pass http://llm; } }
"""


class Stranger:
    """A user with a folder, an environment and a state folder of their own."""

    def __init__(self, home: Path, wheel: Path) -> None:
        self.work = home / "work"
        self.state = home / "state"
        self.bin = home / "env/bin"
        self.work.mkdir()
        (self.work / "lab").mkdir()
        (self.work / "lab/__init__.py").write_text('raise ImportError("the stranger\'s own lab")\n')
        (self.work / "nginx.conf").write_text(CONF)
        ports = {"LAB_PORT": str(free_port()), "LAB_DOOR_PORT": str(free_port())}
        names = {"LAB_PROJECT": f"lab-stranger-{os.getpid()}", "XDG_STATE_HOME": str(self.state)}
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        self.environment = {**kept, **names, **ports}
        self.run([sys.executable, "-m", "venv", str(home / "env")])
        self.run([str(self.bin / "pip"), "install", "-q", str(wheel), "pytest"])

    def run(self, words: list[str], stdin: str = "") -> str:
        """Run a command where the stranger works; its standard output, if it succeeds."""
        done = subprocess.run(
            words,
            cwd=self.work,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def lab(self, *words: str, stdin: str = "") -> str:
        """Run `lab`."""
        return self.run([str(self.bin / "lab"), *words], stdin)

    def installed(self) -> dict[str, int]:
        """Every installed file of the lab's with its time, but for compiled modules."""
        (package,) = self.bin.parent.glob("lib/*/site-packages/nginx_llm_lab")
        return {
            str(path): path.stat().st_mtime_ns
            for path in package.rglob("*")
            if "__pycache__" not in path.parts
        }


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """The wheel, built from the source archive and installed from the package index."""
    home = tmp_path_factory.mktemp("stranger")
    build = [sys.executable, "-m", "build", "--no-isolation", "-o", str(home / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (home / "dist").glob("*.whl")
    one = Stranger(home, wheel)
    try:
        yield one
    finally:
        one.lab("down")


def test_a_stranger_gets_everything_from_the_wheel(stranger: Stranger) -> None:
    """Set-up, prediction, verification, a run, its verdict again, the log; and nothing is left."""
    before = stranger.installed()

    stranger.lab("setup")
    picks = stranger.lab("predict", "prompt_prefix", "--servers", "a:1,b:1", stdin="{}\n{}\n")
    verified = stranger.lab("verify", "nginx.conf")
    stranger.lab("up", "--backends", "2")
    ran = stranger.lab("run", "round_robin", "-n", "900", "-c", "1", "--weights", "2,1")
    (folder,) = (stranger.work / ".lab/runs").glob("*-round_robin")  # verify leaves one too
    judged = stranger.lab("judge", str(folder))
    listed = stranger.lab("runs")
    log = stranger.lab("logs")
    down = stranger.lab("down")

    assert picks.count('"server"') == 2
    assert verified.splitlines()[1].startswith("PASS   round_robin  gpu-1: ")
    for text in (ran, judged):
        assert text.startswith("PASS   round_robin  backend-1: 600, backend-2: 300")
    assert folder.name in listed
    assert len(re.findall(r" to: [\d.]+:8000$", log, re.MULTILINE)) >= 900
    assert "nothing of" in down
    assert stranger.installed() == before
    assert [path.name for path in stranger.state.iterdir()] == ["nginx-llm-lab"]


def test_the_readme_s_test_runs_beside_their_own_lab_package(stranger: Stranger) -> None:
    """The plugin is found by its installed name, whatever `lab/` the stranger has."""
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n(def test_my.*?)```", readme, re.DOTALL)
    assert example
    (stranger.work / "test_mine.py").write_text(example[1])

    said = stranger.run([str(stranger.bin / "pytest"), "-q", "test_mine.py"])

    assert "1 passed" in said
