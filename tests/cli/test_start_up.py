"""What a verb imports before it does anything."""

import subprocess
import sys

import pytest

from nginx_llm_lab import cli

HEAVY = (
    *("docker", "requests", "aiohttp", "numpy", "scipy", "numba", "matplotlib", "pandas"),
    *("jinja2", "pydantic", "asyncio", "yaml"),
)
PROBE = """
import sys
from nginx_llm_lab.cli import main
try:
    main()
finally:
    heavy = [name for name in sys.argv[0].split() if name in sys.modules]
    print("loaded:", *heavy, file=sys.stderr)
"""


def loaded(*words, stdin=b""):
    """The heavy modules that a call of the command has loaded when it ends."""
    code = f"import sys; sys.argv = [{' '.join(HEAVY)!r}, *{words!r}]\n{PROBE}"
    done = subprocess.run(
        [sys.executable, "-c", code], input=stdin, capture_output=True, check=False
    )
    return done.stderr.decode().rpartition("loaded:")[2].split()


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--version",),
        ("nonsense",),
        ("methods",),
        ("split", "--help"),
        ("predict", "round_robin", "--servers", "a:1,b:1"),
    ],
)
def test_a_light_verb_loads_no_heavy_library(words):
    """Docker's library, HTTP clients and numerics each cost a quarter of a second or more."""
    assert loaded(*words, stdin=b"{}\n") == []


@pytest.mark.parametrize("words", [("use", "fair"), ("use", "--help"), ("status", "--help")])
def test_a_switch_loads_neither_dockers_library_nor_a_client(words):
    """The engine is asked over its socket."""
    assert loaded(*words) == []


def test_counting_a_file_loads_no_heavy_library(tmp_path):
    """A log needs no lab."""
    log = tmp_path / "access.log"
    log.write_text("GET / to: 10.0.0.1:80\n")

    assert loaded("split", str(log)) == []


def test_each_verb_is_a_documented_function_of_its_module():
    """VERBS, the modules and the help agree."""
    undocumented = [
        name for name, module in cli.VERBS.items() if not cli.docstrings(module).get(name)
    ]

    assert undocumented == []
