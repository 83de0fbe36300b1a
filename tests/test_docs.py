"""What the pages show is what the command prints."""

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from nginx_llm_lab.traffic.scenario_file import parse

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^\$ (printf .*\| lab predict .*)\n((?:.*\n)*?)```", re.MULTILINE)
EXAMPLES = [
    (page.name, *found.groups())
    for page in (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
    for found in BLOCK.finditer(page.read_text())
]


def test_the_methods_page_has_an_example_for_every_method_but_those_made_of_others():
    """prompt_prefix is hash_consistent with another key."""
    text = (ROOT / "docs/methods.md").read_text()
    shown = set(re.findall(r"lab predict (\w+) ", text))

    known = {file.stem for file in (ROOT / "nginx/methods").glob("*.conf")}
    assert known - shown <= {"prompt_prefix"}


@pytest.mark.parametrize(("page", "command", "shown"), EXAMPLES)
def test_every_prediction_shown_is_what_the_command_prints(page, command, shown):
    """Word for word."""
    lab = str(Path(sys.executable).with_name("lab"))
    words = ["bash", "-c", command.replace("lab predict", f"'{lab}' predict")]

    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout

    assert printed == shown, page


def test_the_scenario_shown_is_one_that_is_read():
    """Every key of a scenario is in it, but those that have no use beside the others."""
    page = (ROOT / "docs/llm.md").read_text()
    match = re.search(r"```\n(# mine\.yaml\n.*?)```", page, re.DOTALL)
    shown = match[1] if match else ""

    scenario = parse(shown, "mine.yaml")

    assert scenario.name == "mine"
    assert {event.do for event in scenario.timeline} == {"fault", "heal", "scale", "use", "reload"}
    left_out = {field.name for field in fields(scenario) if f"{field.name}:" not in shown}
    assert left_out == {"name", "api", "model", "trace"}
