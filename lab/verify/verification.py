"""Judge the user's nginx.conf: real nginx with that file, stand-ins, traffic, verdicts."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from .. import verdict
from ..errors import LabError, UsageError
from ..nginxconf import tree, variables
from ..nginxconf.model import Upstream
from ..nginxconf.variables import Variables
from ..verdict import Verdict
from ..word import Word
from . import calls, failover, files, reach
from .calls import Call, Traffic
from .doubts import ALLOW, Doubt, exists, names_to_resolve, remaining
from .keep import keep
from .reach import Way
from .setting import Setting
from .stage import Stage
from .survey import Survey, literal, split_address, survey

# what to do where there is no verdict
NO_STANDIN = f"give it an address and port of its own in a copy of the file; {ALLOW}"
SAME_ADDRESS = f"give each server an address or a port of its own; {ALLOW}"
NO_REQUEST = f"judge the other upstreams with --upstream NAME; {ALLOW}"
REFUSED = f"relax in a copy of the file what answers instead; {ALLOW}"
UNDECIDED = f"in a copy of the file, hash what a request says ($request_uri, a header); {ALLOW}"
AGAIN = f"run it again on a quieter machine, or with --seed 2; {ALLOW}"
ENOUGH = 4  # one in so many requests has to reach the upstream

Record = Mapping[str, Any]  # what the caller tells of one call


@dataclass(frozen=True, slots=True)
class Judged:
    """One upstream, where it stands, what nginx did with it, and with requests besides.

    `folder` is the run folder that holds the evidence, empty where no request was made.
    """

    upstream: str
    where: str
    verdict: Verdict
    besides: str = ""
    hint: str = ""
    failover: str = ""
    folder: str = ""

    def __str__(self) -> str:
        besides = f"; besides: {self.besides}" if self.besides else ""
        lines = [str(self.verdict), f"       upstream {self.upstream}, {self.where}{besides}"]
        lines += [f"       fail-over: {self.failover}"] if self.failover else []
        lines += [f"       {self.folder}"] if self.folder else []
        lines += [f"try:   {self.hint}"] if self.hint else []
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON."""
        said = self.verdict
        return {
            "upstream": self.upstream,
            "where": self.where,
            "verdict": said.word,
            "method": said.method,
            "split": counts(said.split_text),
            "hits": said.hits,
            "why": said.why,
            "besides": self.besides,
            "failover": self.failover,
            "try": self.hint,
            "folder": self.folder,
        }


def counts(split: str) -> dict[str, int]:
    """A split's text as numbers: "a: 2, b: 1"."""
    parts = (part.rpartition(": ") for part in split.split(", ") if part)
    return {name: int(count.replace(",", "")) for name, _, count in parts}


@dataclass(frozen=True, slots=True)
class Verification:
    """A config and the verdict on each of its upstreams.

    `not_honoured` is everything that was not as the config says; `notes` what is worth knowing;
    `unjudged` the upstreams that only nginx's own requests reach; `doubts` what nginx needs at
    start and what is not here.
    """

    conf: str
    nginx: str
    upstreams: tuple[Judged, ...]
    not_honoured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    unjudged: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nginx would start, there was something to judge, and all of it is right."""
        return self.words == {Word.PASS}

    @property
    def words(self) -> set[str]:
        """The words of all verdicts; UNSURE where it is open whether nginx would start."""
        words = {judged.verdict.word for judged in self.upstreams}
        return words | ({Word.UNSURE} if self.doubts or not self.upstreams else set())

    def accepted(self, *, allow_unsure: bool) -> bool:
        """Whether a CI job is to go on."""
        return self.holds or (allow_unsure and Word.FAIL not in self.words)

    def __str__(self) -> str:
        head = f"{self.conf} on nginx {self.nginx}, {self.seconds:.1f} s"
        return "\n".join([head, *map(str, self.upstreams), *map(str, self.doubts), *self._rest()])

    def _rest(self) -> Iterator[str]:
        if not self.upstreams:
            yield "UNSURE no upstream to judge: no proxy_pass leads to one"
            yield f"try:   name the file whose proxy_pass leads to an upstream; {ALLOW}"
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
            "doubts": [
                {"name": doubt.name, "why": doubt.cause, "try": doubt.hint} for doubt in self.doubts
            ],
            "unjudged": list(self.unjudged),
            "not_honoured": list(self.not_honoured),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }

    def cases(self) -> list[dict[str, str]]:
        """One JUnit XML case per upstream and per doubt."""
        doubts = [
            {"name": f"{self.conf} {doubt.name}", "word": Word.UNSURE, "text": str(doubt)}
            for doubt in self.doubts
        ]
        return doubts + [
            {
                "name": f"{self.conf} {judged.upstream}",
                "word": judged.verdict.word,
                "text": str(judged),
            }
            for judged in self.upstreams
        ]


def verify(
    conf: Path,
    *,
    seed: int = 1,
    assumed: Sequence[str] = (),
    only: Sequence[str] = (),
    on_progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Serve `conf` with a real nginx, send each upstream what its method needs, and judge it.

    `assumed` are patterns of hosts and files that exist where the user's nginx runs; `only` names
    the upstreams to judge, all where it is empty. The file is read, never written. A config that
    nginx refuses is a LabError with nginx's words. Nothing is left behind, and nothing can get
    out: no container has a network.
    """
    begun = time.monotonic()
    if files.is_stream(conf):
        with files.kept(conf) as copy:
            found_there = verify(
                copy, seed=seed, assumed=assumed, only=only, on_progress=on_progress
            )
            return renamed(found_there, str(copy), str(conf))
    config = tree.read(conf)
    found = surveyed(config)
    refuse_unknown(only, found)
    given = setting(config, conf, found)
    on_progress("starting nginx and the stand-ins")
    try:
        with Stage(given) as stage:
            trial = Trial(stage, config, found, seed, tuple(assumed), tuple(only))
            judged = tuple(judge_all(trial, on_progress))
            version, mended = stage.version(), tuple(stage.mended)
    except LabError as error:
        raise type(error)(shown(error.message, conf), error.hint) from None
    missed = (*found.unmet, *files.absent(config, conf), *(shown(it, conf) for it in mended))
    doubts = [
        Doubt(shown(it.name, conf), shown(it.cause, conf), shown(it.hint, conf))
        for it in stage.doubts
    ]
    return Verification(
        conf=str(conf),
        nginx=version,
        upstreams=judged,
        not_honoured=tuple(dict.fromkeys(missed)),
        notes=(
            *(shown(text, conf) for text in stage.warnings),
            *(note for upstream in found.upstreams for note in hints(upstream, found)),
            *names_to_resolve(named_servers(found)),
        ),
        seconds=time.monotonic() - begun,
        unjudged=tuple(unreachable(found)),
        doubts=remaining(doubts, assumed),
    )


Value = TypeVar("Value")


def renamed(value: Value, old: str, new: str) -> Value:
    """A value with another path in all its texts, at any depth."""
    changed: Any = value
    if isinstance(value, str):
        changed = value.replace(old, new)
    elif isinstance(value, tuple):
        changed = tuple(renamed(part, old, new) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: getattr(value, part.name) for part in fields(value)}
        changed = replace(value, **{name: renamed(part, old, new) for name, part in parts.items()})
    return cast("Value", changed)


def surveyed(config: tree.Config) -> Survey:
    """What a config needs around it; a config that breaks nginx's rules is a LabError."""
    try:
        return survey(config)
    except UsageError as error:
        raise LabError(f"nginx refuses {config.file}\n{error.message}", error.hint) from None


def refuse_unknown(only: Sequence[str], found: Survey) -> None:
    """UsageError where `--upstream` names one that the config lacks."""
    known = [upstream.name for upstream in found.upstreams]
    for name in only:
        if name not in known:
            raise UsageError(f'no upstream "{name}"', f"name one of {', '.join(known)}")


def unreachable(found: Survey) -> Iterator[str]:
    """The upstreams to which only nginx's own requests lead, which are not judged."""
    for upstream in found.upstreams:
        routes = found.routes.get(upstream.name.lower(), ())
        if routes and not any(map(reach.from_outside, routes)):
            yield (
                f"upstream {upstream.name} ({where(upstream, found)}): only requests that nginx"
                f' makes itself reach it, in location "{routes[0].location}" ({routes[0].where})'
            )


def named_servers(found: Survey) -> Iterator[str]:
    """The host names of `server` lines in `upstream` blocks."""
    for upstream in found.upstreams:
        for server in upstream.servers if upstream.line else ():
            host, _ = split_address(server.name)
            if host and literal(host) is None and host.lower() != "localhost":
                yield host


def setting(config: tree.Config, conf: Path, found: Survey) -> Setting:
    """Everything that the containers need for a config."""
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
        ipv6=found.ipv6,
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
    config: tree.Config
    survey: Survey
    seed: int
    assumed: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @property
    def upstreams(self) -> Iterator[Upstream]:
        """The upstreams to judge, in the order of the config: those that clients can reach."""
        for upstream in self.survey.upstreams:
            routes = self.survey.routes.get(upstream.name.lower(), ())
            chosen = not self.only or upstream.name in self.only
            if chosen and any(map(reach.from_outside, routes)):
                yield upstream

    def name_of(self, door: str) -> str:
        """The `server` text behind a stand-in, as the config has it."""
        places = (place for places in self.survey.places.values() for place in places)
        names = (place.server for place in places if door in map(str, place.doors))
        return next(names, door)


def judge_all(trial: Trial, on_progress: Callable[[str], None]) -> Iterator[Judged]:
    """Judge every upstream that something leads to, in the order of the config.

    Those with a zone come first: without one each worker has its own turns and loads, so from
    there on one worker serves alone.
    """
    led_to = list(trial.upstreams)
    said: dict[str, Judged] = {}
    passed: dict[str, tuple[Attempt, Way]] = {}
    for upstream in sorted(led_to, key=lambda it: not it.zone):
        on_progress(f"upstream {upstream.name}: {upstream.label}")
        try:
            said[upstream.name], attempted = judge_one(trial, upstream)
            if attempted and said[upstream.name].verdict.word == Word.PASS:
                passed[upstream.name] = attempted
        except UsageError as error:  # a variable whose value no request decides
            said[upstream.name] = unsure(trial, upstream, error.message, UNDECIDED)
    # last, as upstreams may share servers
    for name, (attempt, way) in passed.items():
        said[name] = attempt.fail_over(way, said[name])
    yield from (said[upstream.name] for upstream in led_to)


def judge_one(trial: Trial, upstream: Upstream) -> tuple[Judged, tuple["Attempt", Way] | None]:
    """Find a way that is open, send the method's traffic along it, judge what came back.

    With the verdict come the attempt and the way that it took, where there was one.
    """
    if reason := unjudgeable(trial, upstream):
        return unsure(trial, upstream, *reason), None
    places = trial.survey.places[upstream.name]
    servers = {str(door): place.server for place in places for door in place.doors}
    conf = variables.read(trial.config, upstream.name)
    routes = [
        route for route in trial.survey.routes[upstream.name.lower()] if reach.from_outside(route)
    ]
    ways = tuple(way for route in routes for way in reach.ways(route, conf))
    if not ways:
        tried = "; ".join(reach.obstacle(route, conf) for route in routes)
        why = f"no request could be made for {tried}"
        return unsure(trial, upstream, why, NO_REQUEST), None
    await_doors(trial, upstream, ways)
    attempt = Attempt(trial, upstream, conf, servers)
    judged, way = attempt.judge(ways)
    return judged, (attempt, way)


def unjudgeable(trial: Trial, upstream: Upstream) -> tuple[str, str] | None:
    """Why an upstream has no verdict before any request is made, and what to do; None if it can."""
    doubt = trial.survey.doubts.get(upstream.name)
    if doubt and not exists(doubt.name, trial.assumed):
        return doubt.cause, doubt.hint
    places = trial.survey.places[upstream.name]
    if homeless := [place for place in places if place.reason]:
        return f"server {homeless[0].server}: {homeless[0].reason}", NO_STANDIN
    doors = {str(door): place.server for place in places for door in place.doors}
    live = {server.name for server in upstream.servers if not server.down}
    if len(set(doors.values())) < len(live):
        return "two servers have the same address and cannot be distinguished", SAME_ADDRESS
    return None


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

    def judge(self, ways: Sequence[Way]) -> tuple[Judged, Way]:
        """The verdict, and the route of the requests.

        What load did not show, or showed wrong, is tried again with less of it.
        """
        probes, records = self.probe(ways)
        way, call = probes[-1]
        if not self.reached(call, records):
            why = f"no request reached it: {self.refusals(records)}"
            return unsure(self.trial, self.upstream, why, REFUSED), way
        said: Judged | None = None
        made, fresh = [call for _, call in probes], True
        for at_once in calls.at_once(self.upstream):
            sent = calls.traffic(self.upstream, way, self.conf, self.trial.seed, at_once)
            records += self.trial.stage.call(calls.plan(way, sent))
            judged = self.weigh(way, (*made, *sent.calls), records, at_once == 1, fresh)
            if judged.verdict.word == Word.PASS:
                return judged, way
            said = judged if said is None or judged.verdict.word == Word.FAIL else said
            made, records, fresh = [], [], False
        return said or judged, way

    def fail_over(self, way: Way, judged: Judged) -> Judged:
        """The verdict again, with what nginx did while servers refused connections."""
        texts: list[str] = []
        faults: list[str] = []
        for drill in failover.drills(self.upstream):
            doors = [door for door, name in self.servers.items() if name in drill.closed]
            self.trial.stage.close_doors(doors)
            sent = calls.plain(self.upstream, way, self.conf, self.trial.seed, failover.REQUESTS)
            records = list(calls.uncached(self.trial.stage.call(calls.plan(way, sent))))
            answers = [(self.servers.get(it.get("server", ""), ""), it["status"]) for it in records]
            text, fault = failover.outcome(drill, answers)
            texts.append(text)
            faults += [fault] if fault else []
        if not texts:
            return judged
        self.trial.stage.close_doors(())
        verdict = judged.verdict
        if faults:
            verdict = replace(verdict, word=Word.FAIL, why=f"fail-over: {faults[0]}")
        return replace(judged, verdict=verdict, failover="; ".join(texts))

    def weigh(
        self,
        way: Way,
        sent: Sequence[Call],
        records: Sequence[Record],
        sequential: bool,
        fresh: bool,
    ) -> Judged:
        """Judge the upstream's responses; those from elsewhere are reported separately."""
        hits = tuple(calls.hits(self.upstream, way, self.conf, sent, records, self.servers))
        said = verdict.judge(
            self.upstream,
            hits,
            sequential=sequential,
            addresses=self.addresses(records),
            fresh=fresh,
        )
        kept = keep(
            self.upstream,
            hits,
            traffic=f"{len(sent)} requests",
            sequential=sequential,
            fresh=fresh,
            addresses=self.addresses(records),
            files=self.trial.stage.files,
        )
        counted = {hit.request_id for hit in hits}
        besides = self.refusals([it for it in records if it["id"] not in counted])
        place = where(self.upstream, self.trial.survey)
        if said.word != Word.FAIL and len(hits) * ENOUGH < len(sent):
            why = f"{len(hits):,} of {len(sent):,} requests reached it"
            said = replace(said, word=Word.UNSURE, why=why)
        hint = AGAIN if said.word == Word.UNSURE else ""
        # the command that would settle it is one of the lab's own nginx
        said = replace(said, command="")
        return Judged(self.upstream.name, place, said, besides, hint, folder=str(kept))

    def addresses(self, records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
        """What each server's name means to nginx: the addresses that it asked, else the first."""
        asked = {record.get("server") for record in records}
        found: dict[str, list[str]] = {}
        for door, name in self.servers.items():
            found.setdefault(name, []).append(door)
        return {
            name: tuple(door for door in doors if door in asked) or (doors[0],)
            for name, doors in found.items()
        }

    def probe(self, ways: Sequence[Way]) -> tuple[list[tuple[Way, Call]], list[Record]]:
        """Try the ways in turn, up to the first that leads to a server of the upstream."""
        tried: list[tuple[Way, Call]] = []
        records: list[Record] = []
        for number, way in enumerate(ways, 1):
            call = calls.probe(self.upstream, way, self.conf, number)
            tried.append((way, call))
            records += self.trial.stage.call(calls.plan(way, Traffic((call,), 1)))
            if self.reached(call, records):
                break
        return tried, records

    def reached(self, call: Call, records: Sequence[Record]) -> bool:
        """Whether a server of the upstream answered a call."""
        return any(it["id"] == call.id and it.get("server") in self.servers for it in records)

    def refusals(self, records: Sequence[Record]) -> str:
        """What came back instead of an answer of the upstream's, as a person would write it."""
        counts = Counter(map(self.refusal, records))
        return ", ".join(f"{said}: {number:,}" for said, number in counts.items())

    def refusal(self, record: Record) -> str:
        """What one request got instead."""
        if record.get("server") in self.servers:
            return "answered from a cache"
        if record.get("server"):
            return f"answered by {self.trial.name_of(record['server'])}"
        to = f" to {record['location']}" if record.get("location") else ""
        return str(record.get("error") or f"answered by nginx with {record['status']}{to}")


def unsure(trial: Trial, upstream: Upstream, why: str, hint: str) -> Judged:
    """A verdict without evidence, and what the user can do."""
    said = Verdict(Word.UNSURE, upstream.label, "", why)
    return Judged(upstream.name, where(upstream, trial.survey), said, hint=hint)


def where(upstream: Upstream, found: Survey) -> str:
    """The place of an upstream's block, else of the `proxy_pass` that makes the group."""
    if upstream.line:
        return f"{upstream.file}:{upstream.line}"
    return found.routes[upstream.name.lower()][0].where


def hints(upstream: Upstream, found: Survey) -> Iterator[str]:
    """What a user should know of an upstream beside its verdict."""
    if upstream.name.lower() not in found.routes or len(upstream.servers) < 2:
        return
    if not upstream.zone and found.workers != "1" and not upstream.record.stateless:
        yield (
            f"upstream {upstream.name} has no zone, so each worker counts for itself: one was"
            f" judged alone. To share: zone {upstream.name} 64k;"
        )
