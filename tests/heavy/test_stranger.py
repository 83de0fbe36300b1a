"""The wheel in an empty environment, beside a `lab/` package of the stranger's own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.stack.compose import free_port

CONF = """
upstream llm { zone llm 64k; server gpu-1:8000 weight=2; server gpu-2:8000; }
server { listen 80; location / { proxy_pass http://llm; } }
"""


class Stranger:
    """A user with a folder, an environment and a state folder of their own."""

    def __init__(self, home: Path, wheel: Path) -> None:
        self.work = home / "work"
        self.state = home / "state"
        self.bin = home / "nginx-llm-lab/bin"  # the action's environment
        self.work.mkdir()
        (self.work / "lab").mkdir()
        (self.work / "lab/__init__.py").write_text('raise ImportError("the stranger\'s own lab")\n')
        (self.work / "nginx.conf").write_text(CONF)
        ports = {"LAB_PORT": str(free_port()), "LAB_DOOR_PORT": str(free_port())}
        names = {"LAB_PROJECT": f"lab-stranger-{os.getpid()}", "XDG_STATE_HOME": str(self.state)}
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        runner = {"RUNNER_TEMP": str(home), "GITHUB_STEP_SUMMARY": str(home / "summary.md")}
        self.environment = {**kept, **names, **ports, **runner}
        self.action("install", {"github.action_path": str(wheel)})
        self.run([str(self.bin / "pip"), "install", "-q", "pytest", "pre-commit"])

    def action(self, name: str, values: dict[str, str]) -> str:
        """Run a step of action.yml as GitHub does; `values` stand for its expressions."""
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        (step,) = (step for step in action["runs"]["steps"] if step.get("name") == name)
        defaults = {
            f"inputs.{key}": given.get("default") for key, given in action["inputs"].items()
        }
        known = {**defaults, **values}
        given = {
            variable: re.sub(r"\$\{\{ (\S+) \}\}", lambda match: known[match[1]], text)
            for variable, text in step["env"].items()
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # setup-python's python
        bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        assert step["shell"] == "bash"
        return self.run(bash, more={**given, "PATH": path})

    def shell(self, script: str, **more: str) -> str:
        """Run a script with the installed `lab` on the PATH."""
        path = f"{self.bin}:{os.environ['PATH']}"
        return self.run(["sh", "-euc", script], more={"PATH": path, **more})

    def run(self, words: list[str], stdin: str = "", more: dict[str, str] | None = None) -> str:
        """Run a command where the stranger works; its standard output, if it succeeds."""
        done = subprocess.run(
            words,
            cwd=self.work,
            env={**self.environment, **(more or {})},
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

    output = stranger.run([str(stranger.bin / "pytest"), "-q", "test_mine.py"])

    assert "1 passed" in output


def test_the_github_action_s_steps_verify_a_config(stranger: Stranger) -> None:
    """Words of `args` arrive one by one; verdict, annotation, summary and JUnit XML are there."""
    beside = CONF.replace("} }\n", "} location /g/ { proxy_pass http://grafana:3000; } }\n")
    (stranger.work / "beside.conf").write_text(beside)
    words = {"inputs.conf": "beside.conf", "inputs.args": "--seed 2 --allow-unsure"}

    output = stranger.action("verify", words)

    assert "PASS   round_robin  gpu-1: " in output
    assert re.search(r"^::warning file=beside\.conf,line=3::UNSURE", output, re.MULTILINE)
    assert "PASS" in Path(stranger.environment["GITHUB_STEP_SUMMARY"]).read_text()
    suite = ET.parse(stranger.work / "lab-verify.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "1")


def test_the_pre_commit_hook_runs_as_the_page_has_it(stranger: Stranger) -> None:
    """By pre-commit itself, with the hook as defined; its environment is the installed wheel."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (page,) = yaml.safe_load(example("pre-commit"))
    (used,) = page["hooks"]
    assert used["id"] == hook["id"]
    local = {"repo": "local", "hooks": [{**hook, **used, "language": "system"}]}
    (stranger.work / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [local]}))
    deployed(stranger)

    output = stranger.shell("git init -q . && git add deploy && pre-commit run --verbose")

    assert re.search(r"^lab verify\.+Passed$", output, re.MULTILINE)
    assert "PASS   round_robin  gpu-1: " in output


def test_the_gitlab_example_s_script_verifies_a_config(stranger: Stranger) -> None:
    """Its lines but the one that installs the engine's packages, on this machine's engine."""
    job = yaml.safe_load(example("GitLab"))["nginx"]
    packages, *lines = job["script"]
    assert packages.startswith("apt-get update && apt-get install ")
    deployed(stranger)

    output = stranger.shell("\n".join(lines), LAB_ENGINE=job["variables"]["LAB_ENGINE"])

    assert "PASS   round_robin  gpu-1: " in output
    report = job["artifacts"]["reports"]["junit"]
    assert ET.parse(stranger.work / report).getroot().get("tests") == "1"


def example(title: str) -> str:
    """The YAML of a section of docs/ci.md."""
    section = (ROOT / "docs/ci.md").read_text().split(f"\n## {title}\n")[1]
    (text,) = re.findall(r"```yaml\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    return str(text)


def deployed(stranger: Stranger) -> None:
    """Put the config where the page's examples have it."""
    (stranger.work / "deploy").mkdir(exist_ok=True)
    (stranger.work / "deploy/nginx.conf").write_text(CONF)


def test_advice_is_verified_by_the_name_of_its_fleet(stranger: Stranger) -> None:
    """The nginx.conf is nowhere but on the screen: no path of a temporary folder is shown."""
    fleet = "servers: [{profile: h100-8b, count: 2}]\nrate: 4\nprompt: 200\noutput: 40\n"
    (stranger.work / "fleet.yaml").write_text(f"{fleet}requests: 400\n")

    output = stranger.shell("lab advise --fleet fleet.yaml --verify 2>&1")

    assert re.search(r"^nginx\.conf for fleet\.yaml on nginx ", output, re.MULTILINE)
    assert re.search(r"^       upstream \w+, nginx\.conf:\d+$", output, re.MULTILINE)
    assert "/nginx.conf" not in output
