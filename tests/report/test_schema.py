"""What --json prints is what docs/schema.json says."""

import json
from pathlib import Path

import jsonschema
import pytest

from nginx_llm_lab.accounts.outcome import Counts, Outcome
from nginx_llm_lab.cli import terminal
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


@pytest.mark.parametrize(("data", "key"), [(RUN, "foreign"), (VERIFICATION, "prerequisites")])
def test_a_key_that_goes_breaks_the_schema(data: dict[str, object], key: str) -> None:
    """The version has to be raised then."""
    rest = {"schema": terminal.SCHEMA, **{name: data[name] for name in data if name != key}}

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rest, SCHEMA)
