"""A report is one page without network access, with the same numbers as its JSON."""

import re

from nginx_llm_lab.report import page
from nginx_llm_lab.report.page import Cell, HeatMap, Page, Section, Share, Table
from nginx_llm_lab.report.pictures import Mark

SECTION = Section(
    title="heavy_tail by least_conn",
    folder=".lab/runs/1",
    word="PASS",
    verdict="least_conn  backend-1: 334, backend-2: 333",
    split=(Share("backend-1", 334, 333.5), Share("backend-2", 333, 333.5)),
    tables=(Table("Figures", ("backend", "TTFT p50 ms"), (("backend-1", 12.5), ("all", None))),),
    notes=("<script>alert(1)</script> | lost",),
    ttft_ms={"backend-1": [10.0, 12.5, 20.0]},
    lanes={"backend-1": [(0.0, 1), (2.0, 0)]},
    marks=(Mark(1.0, "kill backend-1"),),
    config="upstream llm { server a; }",
)
CARD = HeatMap("TTFT p99, ms", ("heavy_tail",), (("least_conn", (Cell("800", 0.0, "tie"),)),))
REPORT = Page("A report", (SECTION,), (CARD,))


def test_the_page_loads_nothing_and_runs_nothing():
    """No script, no link to anywhere, and a policy that forbids both."""
    written = page.html(REPORT)

    assert "<script" not in written
    assert not re.findall(r'(?:src|href)="(?!#)', written)
    assert "default-src 'none'" in written
    assert len(written) < 2_000_000


def test_every_number_of_the_page_is_in_the_json():
    """The cells carry the whole value; what is shown is rounded."""
    shown = re.findall(r'data-value="([^"]*)"', page.html(REPORT))

    section = REPORT.as_dict()["sections"][0]
    numbers = [
        value for share in section["split"] for value in (share["expected"], share["observed"])
    ]
    numbers += [value for table in section["tables"] for row in table["rows"] for value in row[1:]]
    assert shown == [str(value) for value in numbers]


def test_a_text_from_a_log_is_shown_never_run():
    """In HTML and in Markdown, which may hold HTML."""
    assert "&lt;script&gt;alert(1)" in page.html(REPORT)
    assert "<script" not in page.markdown(REPORT)
    assert r"&lt;script>alert(1)&lt;/script> \| lost" in page.markdown(REPORT)


def test_markdown_has_the_verdict_and_the_tables():
    """What a CI job's summary shows."""
    lines = page.markdown(REPORT).splitlines()

    assert "**PASS** least_conn backend-1: 334, backend-2: 333" in lines
    assert "| backend-1 | 334 | 334 |" in lines
    assert "| backend-1 | 12.5 |" in lines
    assert "| least_conn | 800 |" in lines


def test_the_page_can_be_used_by_keyboard_and_screen_reader():
    """A skip link, landmarks, captions, scopes, labels."""
    written = page.html(REPORT)

    for piece in (
        'class="skip"',
        "<main",
        "<nav aria-label",
        "<caption>",
        'scope="row"',
        "<details>",
    ):
        assert piece in written, piece
    assert written.count('role="img"') == 3
