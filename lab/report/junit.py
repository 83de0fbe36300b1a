"""Verdicts for CI: JUnit XML."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from ..word import Word

ELEMENTS = {Word.FAIL: "failure", Word.UNSURE: "error"}


def write_junit(cases: Sequence[Mapping[str, str]], file: Path) -> None:
    """Write JUnit XML, one case (name, word, text) per verdict. UNSURE is an error."""
    suite = ET.Element("testsuite", name="lab", tests=str(len(cases)))
    for case in cases:
        node = ET.SubElement(suite, "testcase", classname="lab", name=case["name"])
        if element := ELEMENTS.get(Word(case["word"])):
            ET.SubElement(node, element, message=case["text"].splitlines()[0]).text = case["text"]
    suite.set("failures", str(sum(case["word"] == Word.FAIL for case in cases)))
    suite.set("errors", str(sum(case["word"] == Word.UNSURE for case in cases)))
    file.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)
