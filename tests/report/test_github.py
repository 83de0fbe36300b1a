"""What a GitHub job shows of a verification."""

import pytest

from nginx_llm_lab.report import github
from nginx_llm_lab.verdict import Verdict
from nginx_llm_lab.verify.result import UpstreamVerdict, Verification
from nginx_llm_lab.verify.survey.prerequisites import absent_file
from nginx_llm_lab.word import Word

VERIFICATION = Verification(
    "nginx.conf",
    "1.31.3",
    (
        UpstreamVerdict(
            "llm", "conf.d/llm.conf:3", Verdict(Word.PASS, "round_robin", "a: 2, b: 1", "exact")
        ),
        UpstreamVerdict(
            "idle", "nginx.conf:9", Verdict(Word.FAIL, "hash", "a|b: 1", "not\nso"), hint="fix_for"
        ),
    ),
    prerequisites=(absent_file("gpu.conf", "nginx.conf:2"),),
    not_honoured=("resolver <x>",),
).as_dict()


def test_each_verdict_except_pass_has_an_annotation_at_its_line() -> None:
    """PASS needs no annotation."""
    fail, prerequisite = github.annotations(VERIFICATION)

    assert fail == "::error file=nginx.conf,line=9::FAIL upstream idle: not%0Aso"
    assert prerequisite.startswith(
        "::warning file=nginx.conf,line=2::UNSURE gpu.conf (nginx.conf:2)"
    )


def test_the_summary_is_a_table_that_no_name_breaks() -> None:
    """Bars, angle brackets and lines are written out."""
    rows = github.summary(VERIFICATION).splitlines()

    assert rows[4] == "| PASS | llm | round\\_robin | a: 2, b: 1 | exact |"
    assert rows[5] == "| FAIL | idle | hash | a\\|b: 1 | not so |"
    assert rows[-1] == "- resolver \\<x\\>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx refuses", "::error::nginx refuses"),
        ('unknown directive "x" in a/b.conf:7', "::error file=a/b.conf,line=7::unknown directive"),
    ],
)
def test_a_refusal_is_annotated_at_nginx_s_line(text: str, expected: str) -> None:
    """And nowhere in particular where it does not say."""
    assert github.annotation("error", text, text).startswith(expected)
