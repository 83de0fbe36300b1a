"""What the pages show is what the command prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
