"""The page on the architecture names files that there are, each once."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| `(\S+\.py)` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
ON_THE_WAY = ("nginxconf", "evidence", "oracle", "verdict", "accounts", "verify")
# parts of these stages that the three ways do not pass
ASIDE = {
    *("lab/oracle/prediction.py", "lab/accounts/scorecard.py"),
    *("lab/verdict/power.py", "lab/verdict/simulated.py"),
}


def test_every_file_is_there_and_entered_once():
    """A moved file is moved on the page, too."""
    assert [name for name in ROWS if not (ROOT / name).is_file()] == []
    assert [name for name, count in Counter(ROWS).items() if count > 1] == []


def test_no_file_of_a_stage_is_forgotten():
    """A new module has its place on the way of a request, or beside it."""
    files = (file for stage in ON_THE_WAY for file in (ROOT / "lab" / stage).rglob("*.py"))
    names = {str(file.relative_to(ROOT)) for file in files}
    packages = {name for name in names if name.endswith("__init__.py")}

    assert names - packages - {*ROWS} == ASIDE
