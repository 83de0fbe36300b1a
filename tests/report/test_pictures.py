"""Pictures are SVG texts that belong to the page they stand on."""

import re
from xml.etree import ElementTree as ET

import pytest

from nginx_llm_lab.report import pictures
from nginx_llm_lab.report.pictures import Mark

LANES = {"backend-1": [(0.0, 1), (2.0, 0)], "backend-2": [(1.0, 3), (2.0, 0)]}


def drawn() -> dict[str, str]:
    """One of each kind."""
    return {
        "bars": pictures.bars("the split", ["a", "b"], {"observed": [1, 2], "expected": [2, 1]}),
        "histogram": pictures.histogram("TTFT", "ms", {"a": [1.0, 10.0, 100.0], "b": []}),
        "timeline": pictures.timeline("in flight", LANES, [Mark(1.5, "kill backend-1")]),
    }


def test_every_picture_is_one_svg_element_with_a_label():
    """A screen reader says the label; nothing stands before the element."""
    for svg in drawn().values():
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg")
        assert root.get("role") == "img"
    assert 'aria-label="the split"' in drawn()["bars"]


def test_a_picture_takes_the_pages_text_colour():
    """So it can be read on dark and on light."""
    for svg in drawn().values():
        assert "currentColor" in svg
        assert pictures.INK not in svg


def test_words_in_a_picture_stay_words():
    """They can be found, selected and read out."""
    text = " ".join(ET.fromstring(drawn()["timeline"]).itertext())

    assert "kill backend-1" in text
    assert "backend-2" in text


def test_a_label_cannot_break_out_of_its_attribute():
    """It may come from a file name."""
    svg = pictures.bars('"><script>', ["a"], {"observed": [1]})

    assert "<script>" not in svg


def test_nothing_to_draw_is_an_empty_picture():
    """A run without streams has no times to show."""
    assert "<svg" in pictures.histogram("TTFT", "ms", {})
    assert "<svg" in pictures.timeline("in flight", {}, [])


def test_a_long_run_has_a_timeline_of_limited_size():
    """A report is to be sent and opened; the highest number of every moment stays visible."""
    steps = [(at / 100, at % 7) for at in range(50_000)] + [(500.0, 90), (500.01, 0), (900.0, 0)]

    columns = pictures.highest_by_column(steps)

    assert len(columns) <= pictures.COLUMNS + 1
    assert max(count for _, count in columns) == 90
    peak = [count for _, count in columns].index(90)
    ends_at, after = columns[peak + 1]
    assert ends_at == pytest.approx(columns[peak][0] + 900 / pictures.COLUMNS)
    assert after == 0
    assert len(pictures.timeline("in flight", {"backend-1": steps}, [])) < 30_000


def test_a_short_run_is_drawn_as_it_was():
    """Nothing is left out of a lane with few steps."""
    assert pictures.highest_by_column([(0.0, 1), (1.0, 0)]) == [(0.0, 1), (1.0, 0)]


def test_labels_keep_their_digits():
    """Only coordinates are rounded."""
    label = "between 0.125 and 0.375"

    svg = pictures.histogram("times", label, {"backend-1": [0.13, 0.2]})

    assert label in " ".join(ET.fromstring(svg).itertext())


def test_the_same_picture_is_the_same_text():
    """No date and no random ids: two reports can be compared."""
    assert re.sub(r"\s", "", drawn()["bars"]) == re.sub(r"\s", "", drawn()["bars"])
