"""The content of a report: sections with their numbers, tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from . import pictures
from .pictures import Mark


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its caption, its columns, its rows of texts and numbers."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A server's requests: the number observed and, if known, expected."""

    server: str
    observed: int
    expected: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One run folder.

    `word` is the verdict's word (PASS, FAIL, UNSURE) and `verdict` its line; `notes` are findings
    and fates. `ttft_ms` and `itl_ms` hold the values by backend; `lanes` the requests in flight
    by backend, as pictures.timeline draws them; `marks` the events during the run.
    `evidence` names the files of the folder.
    """

    title: str
    folder: str
    word: str
    verdict: str
    split: tuple[Share, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    ttft_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    itl_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    lanes: Mapping[str, Sequence[tuple[float, int]]] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    config: str = ""
    evidence: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The numbers of the section as plain values, for JSON; without the raw series."""
        series = ("ttft_ms", "itl_ms", "lanes", "config")
        return {name: value for name, value in asdict(self).items() if name not in series}


@dataclass(frozen=True, slots=True)
class Cell:
    """One method in one scenario: the text, and its position from 0 (best) to 1 (worst)."""

    text: str
    shade: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A scorecard: a row for each method, a column for each scenario."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report; `unreadable` says of each folder that is left out what is wrong."""

    title: str
    sections: tuple[Section, ...]
    scorecards: tuple[HeatMap, ...] = ()
    unreadable: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Every number on the page, for JSON."""
        return {
            "title": self.title,
            "sections": [section.as_dict() for section in self.sections],
            "scorecards": [asdict(card) for card in self.scorecards],
            "unreadable": list(self.unreadable),
        }


def html(page: Page) -> str:
    """The page as one HTML file without scripts, links or anything else from a network."""
    return _template("report.html").render(page=page, draw=_Drawing())


def markdown(page: Page) -> str:
    """The verdicts and tables as Markdown, for the job summary of a CI system."""
    return _template("report.md").render(page=page)


def in_markdown(value: object) -> str:
    """A value as a cell of a Markdown table, without HTML and line breaks."""
    text = number(value).replace("&", "&amp;").replace("<", "&lt;")
    return " ".join(text.replace("|", "\\|").split())


def number(value: object) -> str:
    """A number rounded for people; JSON has all digits."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


class _Drawing:
    """The pictures of a section, drawn while the page is written."""

    def split(self, section: Section) -> Markup:
        """Expected and observed requests by server."""
        series = {"observed": [float(share.observed) for share in section.split]}
        if all(share.expected is not None for share in section.split):
            series = {"expected": [share.expected or 0.0 for share in section.split], **series}
        names = [share.server for share in section.split]
        return _safe(pictures.bars(f"{section.title}: requests by server", names, series))

    def spread(self, section: Section, name: str) -> Markup:
        """TTFT or ITL by backend."""
        series = section.ttft_ms if name == "TTFT" else section.itl_ms
        return _safe(pictures.histogram(f"{section.title}: {name} by backend", "ms", series))

    def timeline(self, section: Section) -> Markup:
        """Requests in flight by backend."""
        label = f"{section.title}: requests in flight by backend"
        return _safe(pictures.timeline(label, section.lanes, section.marks))


def _safe(svg: str) -> Markup:
    """An SVG that pictures has escaped itself."""
    return Markup(svg)  # noqa: S704 - texts in it were escaped there


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda file: (resources.files(__package__) / "templates" / file).read_text()
        ),
        autoescape=name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "cell": in_markdown}
    return environment.get_template(name)
