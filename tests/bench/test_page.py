"""The tables of the performance page."""

import pytest

from nginx_llm_lab.bench import page
from nginx_llm_lab.bench.bars import BARS
from nginx_llm_lab.bench.figures import Bar, Series, checked
from nginx_llm_lab.bench.run import SECTIONS
from nginx_llm_lab.errors import UsageError
from nginx_llm_lab.paths import ROOT

PAGE = """text
<!-- bench: counting -->
old
<!-- end -->
<!-- bench: services -->
kept
<!-- end -->
"""


def test_a_measured_section_replaces_its_block():
    """One row for each subject; the block of another section keeps its text."""
    figures = [
        Series("counting", "time", "awk", "s", (2.0, 1.0, 3.0)),
        Series("counting", "CPU", "awk", "s", (1.0,)),
        Series("counting", "ratio", "lab", "", (0.5,)),
    ]

    filled = page.filled(PAGE, figures, [], "2 cores.")

    assert (
        filled
        == """text
<!-- bench: counting -->
2 cores.

|  | time, s | CPU, s |
| --- | --- | --- |
| awk | 2 ± 1 | 1 |

|  | ratio |
| --- | --- |
| lab | 0.5 |
<!-- end -->
<!-- bench: services -->
kept
<!-- end -->
"""
    )


def test_targets_have_a_block():
    """It ends with the missed ones."""
    series = Series("counting", "time", "awk", "s", (2.0,))

    filled = page.filled(
        "<!-- bench: targets -->\n<!-- end -->",
        [series],
        checked([series], [Bar("time", "awk", 1.5)]),
        "2 cores.",
    )

    assert "| time | awk | 2 | ≤ 1.5 | **missed** |\n\n1 of 1 targets missed: time: awk." in filled


def test_a_page_without_blocks_is_an_error():
    """The hint shows what a block looks like."""
    with pytest.raises(UsageError, match="no block") as raised:
        page.filled("text", [], [], "")

    assert "bench: SECTION" in raised.value.hint


def test_the_performance_page_has_a_block_for_every_section():
    """So that one command writes all of its figures."""
    blocks = {
        block for _, block, _ in page.BLOCK.findall((ROOT / "docs/performance.md").read_text())
    }

    assert blocks == {*SECTIONS, "targets"}


def test_every_target_names_a_section_s_figure():
    """No two targets have the same name, as the later one would hide the first."""
    names = [(bar.what, bar.subject) for bar in BARS]

    assert len(names) == len(set(names))


def test_a_pipeline_is_one_cell() -> None:
    """A bar in a cell would end it."""
    assert page.markdown(["of"], [["awk | sort"]]).splitlines()[-1] == r"| awk \| sort |"
