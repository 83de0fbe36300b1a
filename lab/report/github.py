"""Output for a GitHub job: annotations at a file and line, and a job summary in Markdown."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..word import Word

LEVELS = {Word.PASS: "notice", Word.FAIL: "error", Word.UNSURE: "warning"}
PLACE = re.compile(r"([^\s()\"]+):(\d+)\b")


def annotation(level: str, text: str, place: str) -> str:
    """One workflow command; `place` is any text that names a file and a line, as nginx.conf:7."""
    match = PLACE.search(place)
    where = f" file={_property(match[1])},line={match[2]}" if match else ""
    return f"::{level}{where}::{_data(text)}"


def annotations(verification: Mapping[str, Any]) -> Iterator[str]:
    """An annotation for each verdict but PASS, and for each file or host that is missing here."""
    for judged in verification["upstreams"]:
        word = Word(judged["verdict"])
        if word != Word.PASS:
            text = f"{word} upstream {judged['upstream']}: {judged['why']}"
            yield annotation(LEVELS[word], text, judged["where"])
    for prerequisite in verification["prerequisites"]:
        yield annotation(
            "warning",
            f"UNSURE {prerequisite['why']}; try: {prerequisite['try']}",
            prerequisite["why"],
        )


def summary(verification: Mapping[str, Any]) -> str:
    """The verdicts as a Markdown table, followed by the directives that were not honoured."""
    lines = [
        f"### lab verify {_cell(verification['conf'])} on nginx {verification['nginx']}",
        "",
        "| verdict | upstream | method | split | why |",
        "|---|---|---|---|---|",
    ]
    for judged in verification["upstreams"]:
        split = ", ".join(f"{name}: {count}" for name, count in judged["split"].items())
        cells = (judged["verdict"], judged["upstream"], judged["method"], split, judged["why"])
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines += [
        f"| UNSURE | {_cell(prerequisite['name'])} | | | {_cell(prerequisite['why'])} |"
        for prerequisite in verification["prerequisites"]
    ]
    for title, key in (("No verdict", "unjudged"), ("Not honoured", "not_honoured")):
        if verification[key]:
            lines += ["", f"{title}:", "", *(f"- {_cell(text)}" for text in verification[key])]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """A text with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _data(text: str) -> str:
    """A text as the value of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
