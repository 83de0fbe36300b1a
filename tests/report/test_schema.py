"""What --json prints is what docs/schema.json says."""

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nginx_llm_lab.accounts.outcome import Counts, Outcome
from nginx_llm_lab.cli import VERBS, terminal
from nginx_llm_lab.evidence.split import Split
from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.word import Word

from .test_github import VERIFICATION

SCHEMA = json.loads((ROOT / "docs/schema.json").read_text())
SPLIT = Split.of({"backend-1": 2, "backend-2": 1})
RUN = Outcome(
    Path("runs/1"),
    "hash",
    "3 requests",
    SPLIT,
    Counts(SPLIT, SPLIT, 3),
    Verdict(Word.PASS, "hash", "backend-1: 2, backend-2: 1", "exact"),
).as_dict()


@pytest.mark.parametrize("data", [RUN, VERIFICATION], ids=["run", "verify"])
def test_what_a_verb_prints_fits_the_schema(
    data: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """With every key that a program may rely on, and its version first."""
    terminal.show(data)

    printed = json.loads(capsys.readouterr().out)
    jsonschema.validate(printed, SCHEMA)
    assert next(iter(printed)) == "schema"


RUNS = str(ROOT / "tests/data/runs")
# what each verb prints that needs no lab
WORDS = {
    "methods": [],
    "scenarios": [],
    "runs": [],
    "judge": [f"{RUNS}/round_robin"],
    "split": [f"{RUNS}/round_robin/access.jsonl"],
    "whatif": [f"{RUNS}/round_robin/access.jsonl"],
    "report": [f"{RUNS}/load"],
    "power": ["round_robin", "--seeds", "1", "-n", "20"],
    "simulate": ["uniform_chat", "--requests", "20"],
    "advise": ["--log", f"{RUNS}/round_robin/access.jsonl"],
}


def printed_by(*words: str) -> Any:
    """What `lab` prints with --json."""
    lab = [sys.executable, "-m", "nginx_llm_lab.cli", *words, "--json"]
    return json.loads(subprocess.run(lab, capture_output=True, check=False).stdout)


def with_json() -> list[str]:
    """The verbs that have --json."""
    return [
        verb
        for verb, module in VERBS.items()
        if "as_json"
        in inspect.signature(getattr(import_module(f"nginx_llm_lab.cli.{module}"), verb)).parameters
    ]


def test_every_verb_with_json_has_a_schema() -> None:
    """A program finds it under the verb's name."""
    assert set(with_json()) <= set(SCHEMA["$defs"])


@pytest.mark.parametrize("verb", WORDS)
def test_what_a_verb_prints_fits_its_own_schema(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as a user runs it; those that need a lab are validated where they run."""
    monkeypatch.chdir(tmp_path)

    printed = printed_by(verb, *WORDS[verb])

    jsonschema.validate(printed, SCHEMA["$defs"][verb] | {"$defs": SCHEMA["$defs"]})
    jsonschema.validate(printed, SCHEMA)


def test_advice_with_one_winner_fits_the_schema(tmp_path: Path) -> None:
    """`tie` is null then; the keys of a fleet are others than those of a log."""
    fleet = tmp_path / "fleet.yaml"
    servers = "[{profile: h100-8b, count: 3}, {profile: h100-8b, slow: 8}]"
    fleet.write_text(f"servers: {servers}\nrate: 12\nprompt: 200\noutput: 40\nrequests: 400\n")

    printed = printed_by("advise", "--fleet", str(fleet))

    assert printed["tie"] is None
    jsonschema.validate(printed, SCHEMA["$defs"]["advise"] | {"$defs": SCHEMA["$defs"]})
    jsonschema.validate(printed, SCHEMA)


def test_a_judged_load_fits_the_schema_of_load() -> None:
    """`lab load` prints what `lab judge` prints of its folder."""
    printed = printed_by("judge", f"{RUNS}/load")

    load = SCHEMA["$defs"]["load"] | {"$defs": SCHEMA["$defs"]}
    jsonschema.validate(printed, load)


@pytest.mark.parametrize(("data", "key"), [(RUN, "foreign"), (VERIFICATION, "prerequisites")])
def test_a_removed_key_violates_the_schema(data: dict[str, object], key: str) -> None:
    """The version has to be raised then."""
    rest = {"schema": terminal.SCHEMA, **{name: data[name] for name in data if name != key}}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rest, SCHEMA)
