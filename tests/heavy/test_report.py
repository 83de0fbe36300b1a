"""The page of a report in a real browser: its numbers are the command's, it needs nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from nginx_llm_lab.paths import ROOT
from nginx_llm_lab.setup import apt
from nginx_llm_lab.stack.shell import run

RUNS = ROOT / "tests/data/runs"
QUIET = (  # no network for the browser itself either
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, the distribution's own."""
    if not shutil.which("chromium"):
        apt.install("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(QUIET)
        )
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page written by the command, and what the command prints as JSON."""
    lab = str(ROOT / ".venv/bin/lab")
    file = tmp_path_factory.mktemp("report") / "report.html"
    run([lab, "report", str(RUNS), "--output", str(file)])
    return file, json.loads(run([lab, "report", str(RUNS), "--json"]).stdout)


def shown(page, section: int, table: str) -> list[list[str]]:
    """The values behind a table's cells, row by row."""
    rows = page.locator(f"#run-{section} table", has_text=table).locator("tbody tr")
    return [
        [cell.get_attribute("data-value") for cell in row.locator("td").all()] for row in rows.all()
    ]


def test_every_number_on_the_page_is_the_commands(chromium, report):
    """Cell by cell: shares, figures, fairness."""
    file, data = report
    page = chromium.new_page()
    page.goto(file.as_uri())

    for number, section in enumerate(data["sections"], 1):
        assert page.locator(f"#run-{number} .word").inner_text().endswith(section["word"])
        assert shown(page, number, "Requests by server") == [
            [str(share["expected"]), str(share["observed"])] for share in section["split"]
        ]
        for table in section["tables"]:
            expected = [[str(value) for value in row[1:]] for row in table["rows"]]
            assert shown(page, number, table["caption"]) == expected


def test_the_page_asks_for_nothing_and_reports_no_error(chromium, report):
    """One request: the file itself. The console stays empty."""
    page, asked, errors = chromium.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(report[0].as_uri())

    assert asked == [report[0].as_uri()]
    assert errors == []


def test_the_page_is_read_by_keyboard_and_by_screen_reader(chromium, report):
    """The first Tab reaches the skip link; every picture has a name; details open with Enter."""
    page = chromium.new_page()
    page.goto(report[0].as_uri())

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    pictures = page.get_by_role("img").all()
    assert len(pictures) >= 5
    assert all(picture.get_attribute("aria-label") for picture in pictures)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_dark_and_light_have_each_their_colours(chromium, report):
    """What the reader's system asks for."""
    colours = set()
    for scheme in ("dark", "light"):
        page = chromium.new_page(color_scheme=scheme)
        page.goto(report[0].as_uri())
        colours.add(page.evaluate("getComputedStyle(document.body).color"))

    assert len(colours) == 2


def test_a_picture_of_the_page_for_the_readme(chromium, report):
    """The first screen of the load's section; LAB_SCREENSHOT names where to keep it."""
    page = chromium.new_page(viewport={"width": 900, "height": 1250})
    page.goto(report[0].as_uri())
    target = Path(os.environ.get("LAB_SCREENSHOT", report[0].with_name("report.png")))

    page.screenshot(path=target)

    assert target.read_bytes().startswith(b"\x89PNG")
    assert target.stat().st_size < 400_000
