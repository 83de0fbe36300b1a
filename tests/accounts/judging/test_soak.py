"""A soak has a recovery for each step."""

from dataclasses import replace
from pathlib import Path

import pytest

from nginx_llm_lab.accounts.judging.soak import recoveries_of
from nginx_llm_lab.accounts.outcome import Soaked
from nginx_llm_lab.evidence.timeline import Window
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.word import Word
from tests.accounts.judging.run_folders import BEGAN, CLAIM, evidence, outcome, timeline


def test_a_soak_is_judged_from_its_folder(tmp_path: Path) -> None:
    """Each window by the claim that nginx had then."""
    windows = [Window(BEGAN + 10, BEGAN + 30, "upstream-2.conf", fresh=False, after="kill x")]
    notes = {"seed": 3, "seconds": 40.0, "steps": ["kill x"], "memory": {"nginx": [1, 2]}}
    soak = evidence(kind="soak", notes=notes, timeline=timeline(windows=windows))

    judged = outcome(tmp_path, replace(soak, claims={"upstream-2.conf": CLAIM}))

    assert isinstance(judged, Soaked)
    assert [(recovery.step, recovery.verdict.hits) for recovery in judged.recoveries] == [
        ("kill x", 20)
    ]
    assert judged.ledger.holds


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["PASS"], ("PASS", 0.0)),
        (["UNSURE", "PASS"], ("PASS", 5.0)),
        (["UNSURE", "UNSURE"], ("UNSURE", 5.0)),
        (["UNSURE", "FAIL"], ("FAIL", 5.0)),
        (["FAIL", "PASS"], ("FAIL", 0.0)),
        (["PASS", "FAIL"], ("PASS", 0.0)),
    ],
)
def test_a_later_window_counts_only_if_the_first_is_unsure(
    words: list[str], expected: tuple[str, float]
) -> None:
    """A FAIL of the first window stays a FAIL."""
    windows = [Window(10.0 + 5 * n, after="kill x", again=n > 0) for n in range(len(words))]
    judged = [
        (window, Verdict(Word(word), "least_conn", "", ""))
        for window, word in zip(windows, words, strict=True)
    ]
    other = (Window(50.0, after="cut y"), Verdict(Word.PASS, "least_conn", "", ""))

    first, second = recoveries_of([*judged, other])

    assert (first.step, first.verdict.word, first.later) == ("kill x", *expected)
    assert (second.step, second.later) == ("cut y", 0.0)
