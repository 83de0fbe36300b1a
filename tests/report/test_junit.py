"""JUnit as CI reads it."""

from xml.etree import ElementTree as ET

from nginx_llm_lab.report import junit


def test_junit_distinguishes_failures_from_errors(tmp_path):
    """FAIL is a failure, UNSURE an error, PASS neither."""
    cases = [
        {"name": word, "word": word, "text": f"{word} why"} for word in ("PASS", "FAIL", "UNSURE")
    ]
    file = tmp_path / "deep/junit.xml"

    junit.write_junit(cases, file)

    suite = ET.parse(file).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["error"]]
