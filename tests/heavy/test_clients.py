"""Clients that people use instead of OpenAI's, unchanged, through nginx.

They are not in requirements.lock: they weigh more than all of it that a user needs.
"""

import json
import sys
from pathlib import Path

import pytest

from nginx_llm_lab.stack.shell import run
from tests import tools

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def client(lab):
    """Run one of the scripts in clients/ against the front door; what it printed."""
    lab.use("round_robin")
    environment = tools.environment(HERE / "clients.lock")

    def printed(script):
        words = [sys.executable, str(HERE / "clients" / script), f"{lab.lab.front}/v1"]
        return json.loads(run(words, env=environment).stdout)

    return printed


def test_langchain_works_unchanged(client):
    """Structured output in both ways, tools, streams, the Responses API, embeddings."""
    answers = client("with_langchain.py")

    assert answers["structured"] == [True, True]
    assert answers["tool"] == ["weather"]
    assert answers["after the tool"]
    assert answers["streamed"] == answers["whole"]
    whole, streamed = answers["usage"]
    assert whole == streamed
    assert answers["pieces"] == whole["output_tokens"]
    assert answers["response streamed"] == answers["response"]
    assert answers["response parsed"]
    assert answers["vectors"] == [384, 384]


def test_instructor_works_unchanged(client):
    """In three of its modes, and as a stream of partial objects that only grow."""
    answers = client("with_instructor.py")

    assert all(answers[mode] for mode in ("TOOLS", "JSON_SCHEMA", "RESPONSES_TOOLS"))
    partial = answers["partial"]
    assert partial[0] == {"name": None, "steps": None}
    assert partial[-1]["name"].startswith(partial[-2]["name"])
    assert all(step["minutes"] is not None for step in partial[-1]["steps"])
