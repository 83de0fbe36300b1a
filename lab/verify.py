"""Judge somebody's own nginx.conf: real nginx with that very file, stand-ins, traffic, verdicts."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lab.config
from lab import variables, verdict
from lab.errors import LabError, UsageError
from lab.upstream import Upstream
from lab.variables import Variables
from lab.verdict import Verdict
from lab.verification import calls, files, reach
from lab.verification.calls import Call, Traffic
from lab.verification.reach import Way
from lab.verification.setting import Setting
from lab.verification.stage import Stage
from lab.verification.survey import Survey, survey


@dataclass(frozen=True, slots=True)
class Judged:
    """One upstream, where it stands, and what nginx did with it."""

    upstream: str
    where: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.verdict}\n       upstream {self.upstream}, {self.where}"

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        said = self.verdict
        return {
            "upstream": self.upstream,
            "where": self.where,
            "verdict": said.word,
            "method": said.method,
            "split": said.split_text,
            "hits": said.hits,
            "why": said.why,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """A config and the verdict on each of its upstreams.

    `not_honoured` is everything that was not as the config says; `notes` what is worth knowing.
    """

    conf: str
    nginx: str
    upstreams: tuple[Judged, ...]
    not_honoured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether there was something to judge, and all of it is right."""
        words = {judged.verdict.word for judged in self.upstreams}
        return words == {"PASS"}

    def __str__(self) -> str:
        head = f"{self.conf} on nginx {self.nginx}, {self.seconds:.1f} s"
        return "\n".join([head, *map(str, self.upstreams), *self._rest()])

    def _rest(self) -> Iterator[str]:
        if not self.upstreams:
            yield "no upstream to judge"
        for title, lines in (("not honoured", self.not_honoured), ("notes", self.notes)):
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
            "not_honoured": list(self.not_honoured),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    def cases(self) -> list[dict[str, str]]:
        """One case an upstream, as JUnit XML wants them."""
        return [
            {
                "name": f"{self.conf} {judged.upstream}",
                "word": judged.verdict.word,
                "text": str(judged),
            }
            for judged in self.upstreams
        ]


def verify(
    conf: Path, *, seed: int = 1, on_progress: Callable[[str], None] = lambda _: None
) -> Verification:
    """Serve `conf` with a real nginx, send each upstream what its method needs, and judge it.

    The file is read, never written. A config that nginx refuses is a LabError with nginx's words.
    Nothing is left behind, and nothing can get out: no container has a network.
    """
    begun = time.monotonic()
    config = lab.config.read(conf)
    found = survey(config)
    given = setting(config, conf, found)
    on_progress("starting nginx and the stand-ins")
    try:
        with Stage(given) as stage:
            judged = tuple(judge_all(Trial(stage, config, found, seed), on_progress))
            version, mended = stage.version(), tuple(stage.mended)
    except LabError as error:
        raise type(error)(shown(error.message, conf), error.hint) from None
    missed = (*found.unmet, *files.absent(config, conf), *(shown(it, conf) for it in mended))
    return Verification(
        conf=str(conf),
        nginx=version,
        upstreams=judged,
        not_honoured=tuple(dict.fromkeys(missed)),
        notes=tuple(note for upstream in found.upstreams for note in hints(upstream, found)),
        seconds=time.monotonic() - begun,
    )


def setting(config: lab.config.Config, conf: Path, found: Survey) -> Setting:
    """Everything that has to stand on the stage for a config."""
    pem = files.certificate(found)
    main, wrapped = files.entrance(config, conf)
    return Setting(
        conf=main,
        files={**files.laid(config, conf), **wrapped, **files.supplied(found, conf, pem)},
        doors=found.doors,
        names=found.names,
        own=found.own,
        dns=found.dns,
        pem=pem,
        own_files=lambda path: files.own_file(path, conf),
    )


def shown(text: str, conf: Path) -> str:
    """A text of nginx's with paths as the user wrote them."""
    folder = "" if conf.parent == Path() else f"{conf.parent}/"
    return text.replace(f"{files.absolute(conf.parent)}/", folder)


# --- traffic and verdicts -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """A stage on which nginx serves, and what is to be tried on it."""

    stage: Stage
    config: lab.config.Config
    survey: Survey
    seed: int


def judge_all(trial: Trial, on_progress: Callable[[str], None]) -> Iterator[Judged]:
    """Judge every upstream that something leads to, in the order of the config.

    Those with a zone come first: without one each worker has its own turns and loads, so from
    there on one worker serves alone.
    """
    found = trial.survey
    led_to = [it for it in found.upstreams if it.name.lower() in found.routes]
    said: dict[str, Verdict] = {}
    for upstream in sorted(led_to, key=lambda it: not it.zone):
        on_progress(f"upstream {upstream.name}: {label(upstream)}")
        try:
            said[upstream.name] = judge_one(trial, upstream)
        except UsageError as error:  # a variable that no request could be made for
            said[upstream.name] = unsure(upstream, error.message)
    yield from (Judged(it.name, where(it, found), said[it.name]) for it in led_to)


def judge_one(trial: Trial, upstream: Upstream) -> Verdict:
    """Find a way that is open, send the method's traffic along it, judge what came back."""
    places = trial.survey.places[upstream.name]
    if homeless := [place for place in places if place.door is None]:
        return unsure(upstream, f"server {homeless[0].server}: {homeless[0].reason}")
    servers = {str(place.door): place.server for place in places}
    if len(servers) < len({server.name for server in upstream.servers}):
        return unsure(upstream, "two of its servers are one address: nobody can tell them apart")
    conf = variables.read(trial.config, upstream.name)
    routes = trial.survey.routes[upstream.name.lower()]
    ways = tuple(way for route in routes for way in reach.ways(route, conf))
    if not ways:
        tried = ", ".join(f'location "{route.location}" ({route.where})' for route in routes)
        return unsure(upstream, f"no request could be made for {tried}")
    await_doors(trial, upstream, ways)
    return Attempt(trial, upstream, conf, servers).judge(ways)


def await_doors(trial: Trial, upstream: Upstream, ways: Sequence[Way]) -> None:
    """Return once nginx listens wherever the ways begin, with one worker if each counts alone."""
    for entry in dict.fromkeys(way.entry for way in ways):
        trial.stage.await_nginx(entry.host, entry.port)
    if not upstream.zone and trial.survey.workers != "1":
        trial.stage.hold_workers(trial.survey.workers)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Traffic for one upstream; `servers` holds the `server` text behind each stand-in."""

    trial: Trial
    upstream: Upstream
    conf: Variables
    servers: Mapping[str, str]

    def judge(self, ways: Sequence[Way]) -> Verdict:
        """The verdict; traffic that told too little by load is tried again with less at once."""
        probes, records = self.probe(ways)
        way, call = probes[-1]
        if not self.reached(call, records):
            return unsure(self.upstream, f"no request reached it: {refusals(records)}")
        asked, fresh = [call for _, call in probes], True
        for at_once in calls.at_once(self.upstream):
            sent = calls.traffic(self.upstream, way, self.conf, self.trial.seed, at_once)
            records += self.trial.stage.call(calls.plan(way, sent))
            said = self.weigh(way, [*asked, *sent.calls], records, at_once == 1, fresh)
            if said.word != "UNSURE":
                break
            asked, records, fresh = [], [], False
        return said

    def weigh(
        self,
        way: Way,
        sent: Sequence[Call],
        records: Sequence[Mapping[str, Any]],
        sequential: bool,
        fresh: bool,
    ) -> Verdict:
        """Judge what came back."""
        addresses = {name: (door,) for door, name in self.servers.items()}
        hits = tuple(calls.hits(self.upstream, way, self.conf, sent, records, self.servers))
        said = verdict.judge(
            self.upstream, hits, sequential=sequential, addresses=addresses, fresh=fresh
        )
        refused = [record for record in records if record.get("server") not in self.servers]
        if said.word == "UNSURE" and refused:
            return replace(said, why=f"{said.why}; {refusals(refused)}", command="")
        return replace(said, command="")

    def probe(self, ways: Sequence[Way]) -> tuple[list[tuple[Way, Call]], list[Mapping[str, Any]]]:
        """Try the ways in turn, up to the first that leads to a server of the upstream."""
        tried: list[tuple[Way, Call]] = []
        records: list[Mapping[str, Any]] = []
        for number, way in enumerate(ways, 1):
            call = Call(f"probe-{number}", way.request)
            tried.append((way, call))
            records += self.trial.stage.call(calls.plan(way, Traffic((call,), 1)))
            if self.reached(call, records):
                break
        return tried, records

    def reached(self, call: Call, records: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a server of the upstream answered a call."""
        return any(it["id"] == call.id and it.get("server") in self.servers for it in records)


def refusals(records: Sequence[Mapping[str, Any]]) -> str:
    """What came back instead of an answer of the upstream's, as a person would write it."""
    return ", ".join(f"{said}: {n}" for said, n in Counter(map(refusal, records)).items())


def refusal(record: Mapping[str, Any]) -> str:
    """What one request got instead."""
    if record.get("server"):
        return f"answered by {record['server']}"
    to = f" to {record['location']}" if record.get("location") else ""
    return str(record.get("error") or f"answered by nginx with {record['status']}{to}")


def unsure(upstream: Upstream, why: str) -> Verdict:
    """A verdict without evidence."""
    return Verdict("UNSURE", label(upstream), "", why)


def label(upstream: Upstream) -> str:
    """The lab's word for what an upstream claims."""
    return "sticky" if upstream.sticky else upstream.method


def where(upstream: Upstream, found: Survey) -> str:
    """The place of an upstream's block, else of the `proxy_pass` that makes the group."""
    if upstream.line:
        return f"{upstream.file}:{upstream.line}"
    return found.routes[upstream.name.lower()][0].where


def hints(upstream: Upstream, found: Survey) -> Iterator[str]:
    """What a user should know of an upstream beside its verdict."""
    if upstream.name.lower() not in found.routes or len(upstream.servers) < 2:
        return
    if not upstream.zone and found.workers != "1" and upstream.method not in verdict.HASHES:
        yield (
            f"upstream {upstream.name} has no zone, so each worker counts for itself: one was"
            f" judged alone. To share: zone {upstream.name} 64k;"
        )
