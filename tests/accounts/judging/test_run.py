"""A run is judged by its own requests, counted in three logs."""

from dataclasses import replace
from pathlib import Path

import pytest

from nginx_llm_lab.accounts.outcome import Outcome
from nginx_llm_lab.evidence.timeline import Incident
from tests.accounts.judging.run_folders import (
    ADDRESS,
    BACKENDS,
    BEGAN,
    CLAIM,
    entry,
    evidence,
    line,
    outcome,
    record,
    timeline,
    took,
)


def test_a_run_has_a_split_and_a_verdict(tmp_path: Path) -> None:
    """Counted three ways."""
    run = outcome(tmp_path, evidence())

    assert isinstance(run, Outcome)
    assert (str(run.split), run.counts.agree) == ("backend-1: 20, backend-2: 20", True)
    assert run.case()["name"] == "round_robin: some requests"


def test_a_client_with_another_count_fails_the_run(tmp_path: Path) -> None:
    """Whatever the verdict on the picks."""
    run = outcome(tmp_path, evidence(sent=41))

    assert not run.holds
    assert "client: 41" in str(run)


@pytest.mark.parametrize(("method", "word"), [("", "UNSURE"), ("hash $uri;", "FAIL")])
def test_a_run_in_which_nginx_was_reloaded_does_not_fail_by_turns(
    tmp_path: Path, method: str, word: str
) -> None:
    """The new workers begin with the first server again; a hash has nothing to forget."""
    incident = Incident("nginx", "has new workers", BEGAN + 21)
    claim = CLAIM.replace("{", f"{{ {method}", 1)
    lines = "".join(line(n, took(n if n < 21 else n + 1)) for n in range(200)).encode()
    entries = "".join(entry(n, took(n if n < 21 else n + 1)) for n in range(200)).encode()
    right = evidence(200, claim=claim, access=lines, journal=entries)

    before = outcome(tmp_path / "a", right)
    after = outcome(tmp_path / "b", replace(right, timeline=timeline(incidents=[incident])))

    assert (before.verdict.word, after.verdict.word) == ("FAIL", word)
    assert after.verdict.why.startswith("nginx has new workers: ") == (word == "UNSURE")


@pytest.mark.parametrize(("sent", "fails"), [("é", False), ("e", True)])
def test_a_key_is_compared_with_what_the_client_sent(
    tmp_path: Path, sent: str, fails: bool
) -> None:
    """nginx logged "é" for each of them."""
    claim = CLAIM.replace("{", "{ hash $http_x_user;", 1)
    key = sent.encode().decode("latin-1")
    records = tuple(record(number, BACKENDS[0], key=key) for number in range(9))
    access = "".join(line(n, BACKENDS[0], hash_key="é") for n in range(9)).encode()
    entries = "".join(entry(n, BACKENDS[0]) for n in range(9)).encode()

    run = outcome(
        tmp_path, evidence(9, claim=claim, access=access, journal=entries, records=records)
    )

    assert (run.verdict.word == "FAIL") == fails, run
    assert ('expected "e" (1 bytes)' in run.verdict.why) == fails


def test_a_verify_run_folder_is_judged_again(tmp_path: Path) -> None:
    """Its log already has server names; the stub backends' counts agree."""
    claim = "upstream mine { zone z 64k; server 10.0.0.1:8000; server 10.0.0.2:8000; }\n"
    journal = "".join(entry(n, ADDRESS[took(n)]) for n in range(40)).encode()
    notes = {"fresh": True, "upstream": "mine"}
    names = {address: address for address in ADDRESS.values()}
    mine = evidence(kind="verify", claim=claim, journal=journal, notes=notes, addresses=names)

    run = outcome(tmp_path, mine)

    assert str(run.split) == "10.0.0.1: 20, 10.0.0.2: 20"
    assert run.counts.agree
    assert run.verdict.word != "FAIL"
