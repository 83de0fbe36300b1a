"""Readers and services accept any bytes: the result is a value or a user error."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nginx_llm_lab.accounts import fates
from nginx_llm_lab.backends.llm.settings import Settings
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.evidence import folder
from nginx_llm_lab.evidence import journal as journals
from nginx_llm_lab.nginxconf import upstream
from nginx_llm_lab.oracle import prediction
from nginx_llm_lab.traffic import scenario_file
from tests.backends.serving import serve

GROUP = upstream.from_options("hash", ("a:1", "b:1 weight=3"), "$request_uri")
WORDS = (
    *("name", "arrivals", "rate", "prompt", "output", "duration", "timeline", "fleet", "at", "do"),
    *(
        "uri",
        "client_ip",
        "method",
        "headers",
        "body",
        "key",
        "t",
        "start",
        "fail",
        "id",
        "backend",
    ),
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda deeper: (
        st.lists(deeper, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), deeper, max_size=5)
    ),
    max_leaves=12,
)
TEXTS = st.binary(max_size=400) | TREES.map(lambda tree: json.dumps(tree).encode())


def refusal(read: Callable[[], object]) -> str | None:
    """What a reader refused its input with; None if it took it. Other errors go through."""
    try:
        read()
    except UsageError as error:
        return error.message
    return None


@given(TEXTS)
def test_a_scenario_of_any_bytes_is_read_or_refused(text: bytes) -> None:
    """With the file's name in the message, never a traceback."""
    message = refusal(lambda: scenario_file.parse(text, "any.yaml"))

    assert message is None or "any.yaml" in message


@given(st.lists(TEXTS, max_size=4))
def test_requests_of_any_bytes_are_predicted_or_refused_with_their_number(
    lines: list[bytes],
) -> None:
    """One line out for each line in, up to the one that is refused."""
    out = io.BytesIO()

    message = refusal(lambda: prediction.predict_lines(GROUP, lines, out))

    assert message is None or any(f"requests:{n}" in message for n in range(1, len(lines) + 1))
    written = out.getvalue().splitlines()
    assert len(written) <= len(lines)
    assert all("server" in json.loads(line) for line in written)


@given(st.lists(TEXTS, max_size=6))
def test_a_journal_of_any_bytes_is_read_line_by_line(lines: list[bytes]) -> None:
    """Each line is an entry or malformed, and an account of it can be given."""
    journal = journals.read(lines)

    assert len(journal.entries) + len(journal.malformed) <= len(lines)
    ledger = fates.account([], [], journal.entries, [], fates.Rules(("backend-1",)))
    assert len(ledger.fates) == len({entry.id for entry in journal.entries})


@given(run=TEXTS, access=TEXTS, journal=TEXTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_folder_of_any_bytes_is_read_or_refused(
    tmp_path: Path, run: bytes, access: bytes, journal: bytes
) -> None:
    """The folder's name is in the message."""
    for file in folder.TEXTS.values():
        (tmp_path / file).write_text("")
    (tmp_path / folder.LOGS["access"]).write_bytes(access)
    (tmp_path / folder.LOGS["journal"]).write_bytes(journal)
    (tmp_path / "run.json").write_bytes(run)

    message = refusal(lambda: folder.read(tmp_path))

    assert message is None or str(tmp_path) in message


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    """A backend that serves, its behaviours healthy."""
    settings = Settings("backend-1", host="127.0.0.1", port=0, behaviour_port=0)
    running = serve(settings)
    yield next(running).url
    assert next(running, None) is None


def test_a_backend_does_what_its_openapi_says(backend: str) -> None:
    """Calls made from the description, right and wrong: no 5xx, and every answer is described."""
    described: Any = schemathesis.openapi.from_url(f"{backend}/openapi.json")
    operations = [found.ok() for found in described.get_all_operations()]

    assert len(operations) > 5
    for operation in operations:

        @settings(max_examples=15, deadline=None, database=None)
        @given(case=operation.as_strategy())
        def holds(case: Any) -> None:
            case.call_and_validate(timeout=20)

        holds()
