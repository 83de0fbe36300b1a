"""The verdicts on the upstreams of a config: as text, as JSON, as JUnit cases."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..verdict import Verdict
from ..word import Word
from .next_steps import PROXY_PASS, RESOLVED
from .survey import NAMES_NONE, OTHER_PASSES
from .survey.prerequisites import ALLOW, Prerequisite


@dataclass(frozen=True, slots=True)
class UpstreamVerdict:
    """The verdict on one upstream at `where`; `besides` counts responses from elsewhere.

    `folder` is the run folder with the evidence, empty if no request was sent.
    """

    upstream: str
    where: str
    verdict: Verdict
    besides: str = ""
    hint: str = ""
    failover: str = ""
    folder: str = ""

    def __str__(self) -> str:
        besides = f"; other responses: {self.besides}" if self.besides else ""
        lines = [str(self.verdict), f"       upstream {self.upstream}, {self.where}{besides}"]
        lines += [f"       fail-over: {self.failover}"] if self.failover else []
        lines += [f"       {self.folder}"] if self.folder else []
        lines += [f"try:   {self.hint}"] if self.hint else []
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        verdict = self.verdict
        return {
            "upstream": self.upstream,
            "where": self.where,
            "verdict": verdict.word,
            "method": verdict.method,
            "split": counts(verdict.split_text),
            "hits": verdict.hits,
            "why": verdict.why,
            "besides": self.besides,
            "failover": self.failover,
            "try": self.hint,
            "folder": self.folder,
        }


def counts(split: str) -> dict[str, int]:
    """Parse the text of a split, "a: 2, b: 1"."""
    parts = (part.rpartition(": ") for part in split.split(", ") if part)
    return {name: int(count.replace(",", "")) for name, _, count in parts}


@dataclass(frozen=True, slots=True)
class Verification:
    """A config and the verdict on each of its upstreams.

    `not_honoured` lists deviations from the config, `notes` hints, `unjudged` the upstreams that
    only nginx's own requests reach, `prerequisites` hosts and files missing at start.
    """

    conf: str
    nginx: str
    upstreams: tuple[UpstreamVerdict, ...]
    not_honoured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    unjudged: tuple[str, ...] = ()
    prerequisites: tuple[Prerequisite, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nginx would start and every upstream, at least one, is PASS."""
        return self.words == {Word.PASS}

    @property
    def words(self) -> set[str]:
        """The words of all verdicts; with UNSURE if it is unknown whether nginx would start."""
        words = {judged.verdict.word for judged in self.upstreams}
        return words | ({Word.UNSURE} if self.prerequisites or not self.upstreams else set())

    def accepted(self, *, allow_unsure: bool) -> bool:
        """Whether the exit code is 0."""
        return self.holds or (allow_unsure and Word.FAIL not in self.words)

    def __str__(self) -> str:
        head = f"{self.conf} on nginx {self.nginx}, {self.seconds:.1f} s"
        return "\n".join(
            [head, *map(str, self.upstreams), *map(str, self.prerequisites), *self._rest()]
        )

    def _rest(self) -> Iterator[str]:
        if not self.upstreams:
            reason = "no client's request" if self.unjudged else "no proxy_pass in http"
            hint = f"name the file whose proxy_pass leads to an upstream; {ALLOW}"
            if other := [line for line in self.not_honoured if line.startswith(OTHER_PASSES)]:
                reason, hint = f"only {other[0].split()[0]}", PROXY_PASS
            elif any(line.endswith(NAMES_NONE) for line in self.not_honoured):
                reason, hint = "only a proxy_pass with variables", RESOLVED
            yield f"UNSURE no upstream to judge: {reason} leads to one"
            yield f"try:   {hint}"
        for title, lines in (
            ("no verdict", self.unjudged),
            ("not honoured", self.not_honoured),
            ("notes", self.notes),
        ):
            if lines:
                yield f"{title}:"
                yield from (f"  {line}" for line in lines)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        return {
            "conf": self.conf,
            "nginx": self.nginx,
            "holds": self.holds,
            "upstreams": [judged.as_dict() for judged in self.upstreams],
            "prerequisites": [
                {"name": prerequisite.name, "why": prerequisite.cause, "try": prerequisite.hint}
                for prerequisite in self.prerequisites
            ],
            "unjudged": list(self.unjudged),
            "not_honoured": list(self.not_honoured),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    def cases(self) -> list[dict[str, str]]:
        """One JUnit XML case per upstream and per prerequisite."""
        prerequisites = [
            {
                "name": f"{self.conf} {prerequisite.name}",
                "word": Word.UNSURE,
                "text": str(prerequisite),
            }
            for prerequisite in self.prerequisites
        ]
        return prerequisites + [
            {
                "name": f"{self.conf} {judged.upstream}",
                "word": judged.verdict.word,
                "text": str(judged),
            }
            for judged in self.upstreams
        ]
