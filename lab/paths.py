"""The locations of the project's own files and of the files that the lab writes.

In a checkout both are in the checkout. An installed package has the files for Docker under
`project/` and writes nothing there: state goes to the user's state folder, evidence to the working
directory.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSTALLED = (PACKAGE / "project").is_dir()
# holds compose.yaml, nginx/, backends/
ROOT = PACKAGE / "project" if INSTALLED else PACKAGE.parent
# the command that does the set-up, in an installed package and in a checkout
SETUP = "lab setup" if INSTALLED else "make setup"


def state_folder() -> Path:
    """The folder of generated files, one for all labs."""
    if not INSTALLED:
        return ROOT / ".lab"
    from platformdirs import user_state_path  # set-up in a checkout has no packages yet

    return user_state_path("nginx-llm-lab")


def runs_folder() -> Path:
    """The folder of run folders; LAB_RUNS names another one."""
    named = os.environ.get("LAB_RUNS")
    return Path(named) if named else (Path.cwd() if INSTALLED else ROOT) / ".lab/runs"
