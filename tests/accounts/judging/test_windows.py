"""A window is judged with the requests of other clients, and those that were cut off."""

from dataclasses import replace
from pathlib import Path

from nginx_llm_lab.word import Word
from tests.accounts.judging.run_folders import evidence, line, outcome, took


def test_foreign_requests_do_not_make_a_load_fail(tmp_path: Path) -> None:
    """Every second request is another client's, so all of the load's go to one backend."""
    right = evidence(80, kind="load", sequential=False)
    own = tuple(one for one in right.records if one.number % 2 == 0)

    load = outcome(tmp_path, replace(right, records=own, sent=40))

    assert load.holds
    assert load.verdict.word != Word.FAIL
    assert "40 foreign requests" in load.verdict.why


def test_a_load_that_was_interrupted_is_judged_by_the_requests_that_were_cut_off_too(
    tmp_path: Path,
) -> None:
    """Those at backend-2 took long, so none of them has a record; their picks were right."""
    right = evidence(80, kind="load", sequential=False, interrupted=True)
    own = tuple(one for one in right.records if one.number % 2 == 0)
    lines = "".join(line(n, took(n), server_port="8081") for n in range(80)).encode()

    load = outcome(tmp_path, replace(right, records=own, sent=40, access=lines))

    assert load.verdict.hits == 80
    assert "foreign" not in load.verdict.why
    assert load.verdict.word != Word.FAIL
