"""Judge the user's nginx.conf: real nginx with that file, stub backends, traffic, verdicts."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

from .. import verdict
from ..errors import LabError, UsageError
from ..evidence.access_log import Hit
from ..evidence.trace import Step
from ..nginxconf import tree, variables
from ..nginxconf.model import Upstream
from ..nginxconf.tree import Directive
from ..nginxconf.upstream import next_upstream
from ..nginxconf.variables import Variables
from ..verdict import Verdict
from ..verdict.rules.exact import unreadable
from ..word import Word
from . import failover, files, traffic
from .logs import joined, timed, without_auth_requests
from .run_folder import write_run_folder
from .sandbox import Sandbox
from .survey import (
    NAMES_NONE,
    OTHER_PASSES,
    Survey,
    listen_hosts,
    literal,
    relocation,
    resolver_hosts,
    speaks_tls,
    split_address,
    survey,
)
from .survey.environment import Environment
from .survey.prerequisites import ALLOW, Prerequisite, exists, names_to_resolve, remaining
from .traffic import PlannedRequest, Traffic, templates
from .traffic.templates import Template

# what to do where there is no verdict
NO_STUB = f"give it an address and port of its own in a copy of the file; {ALLOW}"
SAME_ADDRESS = f"give each server an address or a port of its own; {ALLOW}"
NAMESAKE = f"give one of the two another server_name or port; {ALLOW}"
ALL_DOWN = f'remove "down" from a server in a copy of the file; {ALLOW}'
RESOLVED = (
    "nginx resolves that host for each request and picks any of its addresses; to have it balanced"
    f" and judged, write an upstream with zone and server NAME:PORT resolve; {ALLOW}"
)
PROXY_PASS = (
    "in a copy of the file, write proxy_pass http://NAME in its place: nginx picks servers alike"
    f" for both; {ALLOW}"
)
NO_REQUEST = f"judge the other upstreams with --upstream NAME; {ALLOW}"
REFUSED = f"in a copy of the file, relax the rule that answers instead; {ALLOW}"
RARE = f"in a copy of the file, give it a larger share, or choose it by a header; {ALLOW}"
SRV = f"in a copy of the file, write server NAME:PORT resolve without service=; {ALLOW}"
BODY_UNREAD = (
    "nginx evaluates if and proxy_pass before it reads the body, so $request_body is empty there:"
    f" choose the upstream by a header or the path; {ALLOW}"
)
UNDECIDED = (
    f"in a copy of the file, hash something that requests contain ($request_uri, a header); {ALLOW}"
)
SUBREQUESTS = f"in a copy of the file, switch that directive off; {ALLOW}"
LIMITED = f"in a copy of the file, remove limit_req, which delays or refuses requests; {ALLOW}"
CACHED = f"in a copy of the file, switch proxy_cache off; {ALLOW}"
BINDING = f"in a copy of the file, bind by a cookie or an argument: sticky cookie NAME; {ALLOW}"
AGAIN = f"run it again on a quieter machine, or with --seed 2; {ALLOW}"
ACCESS = (
    "in a copy of the file, write allow 127.0.0.0/8; before that line: the lab's clients have such"
    f" addresses; {ALLOW}"
)
UNBOUND = f"in a copy of the file, leave proxy_bind out; {ALLOW}"
BROKEN = f"in a copy of the file, raise worker_connections if nginx has too few; {ALLOW}"

INTERNAL_ERROR = 500
FAR_BEYOND = 1_000_000_000  # the numbers of requests before
FEWEST_ARRIVE = 4  # one of so many requests has to reach the upstream

Record = Mapping[str, Any]  # the client's record of one request


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


def verify(
    conf: Path,
    *,
    seed: int = 1,
    assumed: Sequence[str] = (),
    only: Sequence[str] = (),
    on_progress: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Serve `conf` with a real nginx, send each upstream its method's traffic, and judge it.

    `assumed` are patterns of hosts and files that exist where the user's nginx runs; `only` names
    the upstreams to judge, empty for all. The file is not changed. A config that nginx refuses
    is a LabError with nginx's message. The containers have no network and are removed.
    """
    begun = time.monotonic()
    if files.is_stream(conf):
        with files.copy_of_stream(conf) as copy:
            try:
                of_copy = verify(
                    copy, seed=seed, assumed=assumed, only=only, on_progress=on_progress
                )
            except LabError as error:
                raise renamed_error(error, str(copy), str(conf)) from None
            return renamed(of_copy, str(copy), str(conf))
    subject = prepared(conf)
    refuse_unknown(only, subject.survey)
    needed = environment(subject)
    on_progress("starting nginx and the stub backends")
    try:
        with Sandbox(needed) as sandbox:
            run = Run(sandbox, subject.config, subject.survey, seed, tuple(assumed), tuple(only))
            judged = tuple(judge_all(run, on_progress))
    except LabError as error:
        raise type(error)(shown(error.message, conf), error.hint) from None
    unreached = tuple(unreachable(subject.survey))
    prerequisites = [
        *(shown_prerequisite(missing, conf) for missing in sandbox.prerequisites),
        *unresolved_hosts(unreached, subject.survey),
        *listen_hosts(subject.config),
    ]
    return Verification(
        conf=str(conf),
        nginx=sandbox.version,
        upstreams=judged,
        not_honoured=tuple(dict.fromkeys(deviations(subject, sandbox.fixes))),
        notes=(*(shown(text, conf) for text in sandbox.warnings), *notes_on(subject)),
        seconds=time.monotonic() - begun,
        unjudged=tuple(unjudged(upstream, subject.survey) for upstream in unreached),
        prerequisites=remaining(prerequisites, assumed),
    )


@dataclass(frozen=True, slots=True)
class Subject:
    """The user's config at `conf`, after the moves of its listeners, and what it needs."""

    conf: Path
    config: tree.Config
    survey: Survey
    moves: tuple[relocation.Move, ...]


def prepared(conf: Path) -> Subject:
    """Read a config, and move its listeners away from the addresses of its servers."""
    config = tree.read(conf)
    survey_result = surveyed(config)
    moves = tuple(relocation.moves(config, survey_result))
    if moves:
        config = relocation.moved(config, moves)
        survey_result = surveyed(config)
    return Subject(conf, config, survey_result, moves)


def deviations(subject: Subject, fixes: Iterable[str]) -> Iterator[str]:
    """Everything that differs from the config; `fixes` are what nginx lacked at its start."""
    yield from subject.survey.unmet
    yield from map(str, subject.moves)
    yield from files.unmatched_includes(subject.config, subject.conf)
    yield from (shown(fix, subject.conf) for fix in fixes)


Value = TypeVar("Value")


def renamed(value: Value, old: str, new: str) -> Value:
    """A value with a path replaced in all its texts, at any depth."""
    changed: Any = value
    if isinstance(value, str):
        changed = value.replace(old, new)
    elif isinstance(value, tuple):
        changed = tuple(renamed(part, old, new) for part in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: getattr(value, part.name) for part in fields(value)}
        changed = replace(value, **{name: renamed(part, old, new) for name, part in parts.items()})
    return cast("Value", changed)


def renamed_error(error: LabError, old: str, new: str) -> LabError:
    """An error with a path replaced in its texts."""
    return type(error)(error.message.replace(old, new), error.hint.replace(old, new))


def shown_prerequisite(prerequisite: Prerequisite, conf: Path) -> Prerequisite:
    """A prerequisite with the user's paths in place of the sandbox's."""
    return Prerequisite(
        shown(prerequisite.name, conf),
        shown(prerequisite.cause, conf),
        shown(prerequisite.hint, conf),
    )


def notes_on(subject: Subject) -> Iterator[str]:
    """Hints on the upstreams of a config, and on the names that nginx resolves at start."""
    for upstream in subject.survey.upstreams:
        yield from hints(upstream, subject.survey)
    hosts = chain(named_servers(subject.survey), resolver_hosts(subject.config))
    yield from names_to_resolve(hosts)


def surveyed(config: tree.Config) -> Survey:
    """What a config needs; LabError for a config that breaks nginx's rules."""
    try:
        return survey(config)
    except UsageError as error:
        raise LabError(f"nginx refuses {config.file}\n{error.message}", error.hint) from None


def refuse_unknown(only: Sequence[str], survey: Survey) -> None:
    """UsageError where `--upstream` names one that the config lacks."""
    known = [upstream.name for upstream in survey.upstreams]
    for name in only:
        if name not in known:
            raise UsageError(f'no upstream "{name}"', f"name one of {', '.join(known)}")


def unreachable(survey: Survey) -> Iterator[Upstream]:
    """The upstreams to which only nginx's own requests lead, which are not judged."""
    for upstream in survey.upstreams:
        routes = survey.routes.get(upstream.name.lower(), ())
        if routes and not any(map(templates.from_outside, routes)):
            yield upstream


def unresolved_hosts(upstreams: Iterable[Upstream], survey: Survey) -> Iterator[Prerequisite]:
    """The hosts of upstreams without a verdict, which nginx resolves at start all the same."""
    for upstream in upstreams:
        if upstream.name in survey.prerequisites:
            yield survey.prerequisites[upstream.name]


def unjudged(upstream: Upstream, survey: Survey) -> str:
    """Why such an upstream is not judged."""
    route = survey.routes[upstream.name.lower()][0]
    return (
        f"upstream {upstream.name} ({where(upstream, survey)}): only requests that nginx"
        f' makes itself reach it, in location "{route.location}" ({route.where})'
    )


def named_servers(survey: Survey) -> Iterator[str]:
    """The host names of `server` lines in `upstream` blocks which nginx resolves at start."""
    for upstream in survey.upstreams:
        for server in upstream.servers if upstream.line else ():
            host, _ = split_address(server.name)
            later = server.resolve or host.lower() == "localhost"
            if host and literal(host) is None and not later:
                yield host


def environment(subject: Subject) -> Environment:
    """Everything that the containers need for a config."""
    conf, config, survey = subject.conf, subject.config, subject.survey
    pem = files.certificate(survey)
    main, wrapped = files.main_file(config, conf)
    return Environment(
        conf=main,
        files={
            **files.files_by_path(config, conf, subject.moves),
            **files.njs_modules(config, conf),
            **wrapped,
            **files.supplied(survey, conf, pem),
        },
        endpoints=survey.endpoints,
        names=survey.names,
        own=survey.own,
        dns=survey.dns,
        pem=pem,
        ipv6=survey.ipv6,
        timed=any(upstream.record.by_time for upstream in survey.upstreams),
        own_files=lambda path: files.own_file(path, conf),
    )


def shown(text: str, conf: Path) -> str:
    """A text from nginx, with paths as the user wrote them."""
    folder = "" if conf.parent == Path() else f"{conf.parent}/"
    text = text.replace(f"{files.absolute(conf)}{files.MAIN}", str(conf))
    return text.replace(f"{files.absolute(conf.parent)}/", folder)


# --- traffic and verdicts -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """A sandbox in which nginx serves, and what to judge in it."""

    sandbox: Sandbox
    config: tree.Config
    survey: Survey
    seed: int
    assumed: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    strayed: set[str] = field(default_factory=set)  # stub backends that answered other upstreams'

    def fresh(self, upstream: Upstream, endpoints: Collection[str]) -> bool:
        """Whether no request has reached an upstream yet that has these stub backends."""
        mine = self.survey.routes[upstream.name.lower()]
        every = chain.from_iterable(self.survey.routes.values())
        subrequests = any(templates.subrequest_to(mine, route) for route in every)
        return not subrequests and self.strayed.isdisjoint(endpoints)

    @property
    def upstreams(self) -> Iterator[Upstream]:
        """The upstreams to judge, in the order of the config: those that clients can reach."""
        for upstream in self.survey.upstreams:
            routes = self.survey.routes.get(upstream.name.lower(), ())
            chosen = not self.only or upstream.name in self.only
            if chosen and any(map(templates.from_outside, routes)):
                yield upstream

    def name_of(self, endpoint: str) -> str:
        """The `server` text behind a stub backend, as the config has it."""
        places = (place for places in self.survey.places.values() for place in places)
        names = (place.server for place in places if endpoint in map(str, place.endpoints))
        return next(names, endpoint)


def judge_all(run: Run, on_progress: Callable[[str], None]) -> Iterator[UpstreamVerdict]:
    """Judge every reachable upstream; results in the order of the config.

    Upstreams with a zone are judged first: without one each worker has its own state, so all
    workers but one are stopped for the others.
    """
    led_to = list(run.upstreams)
    results: dict[str, UpstreamVerdict] = {}
    passed: dict[str, tuple[UpstreamRun, Template]] = {}
    for upstream in sorted(led_to, key=lambda upstream: not upstream.zone):
        on_progress(f"upstream {upstream.name}: {upstream.label}")
        try:
            results[upstream.name], attempted = judge_one(run, upstream)
            if attempted and results[upstream.name].verdict.word == Word.PASS:
                passed[upstream.name] = attempted
        except UsageError as error:  # a variable whose value no request decides
            hint = BINDING if upstream.sticky and not upstream.key else UNDECIDED
            results[upstream.name] = unsure(run, upstream, error.message, hint)
    # last, as upstreams may share servers
    for name, (attempt, template) in passed.items():
        results[name] = attempt.fail_over(template, results[name])
    yield from (results[upstream.name] for upstream in led_to)


def judge_one(
    run: Run, upstream: Upstream
) -> tuple[UpstreamVerdict, tuple["UpstreamRun", Template] | None]:
    """Find a request template that reaches the upstream, send the method's traffic, judge it.

    Also return the UpstreamRun and the template, if there was one.
    """
    if reason := unjudgeable(run, upstream):
        return unsure(run, upstream, *reason), None
    places = run.survey.places[upstream.name]
    servers = {str(endpoint): place.server for place in places for endpoint in place.endpoints}
    conf = variables.read(run.config, upstream.name)
    all_routes = run.survey.routes[upstream.name.lower()]
    routes = [route for route in all_routes if templates.from_outside(route)]
    if not upstream.record.stateless:
        subrequests = [templates.subrequest_to(all_routes, route) for route in routes]
        routes = [route for route, line in zip(routes, subrequests, strict=True) if line is None]
        if not routes and (line := subrequests[0]) is not None:
            why = f"its turns are also taken by {line.name} {line.args[0]} ({line.where})"
            return unsure(run, upstream, why, SUBREQUESTS), None
    if any(map(speaks_tls, routes)):  # which is all that its stub backends speak
        routes = [route for route in routes if speaks_tls(route)]
    servers_of_http = run.config.block("http").all("server")
    hidden_by = [templates.earlier_namesake(route, servers_of_http) for route in routes]
    if all(hidden_by) and hidden_by[0] is not None:
        why = (
            f"nginx ignores its server ({routes[0].scopes[1].where}): another with the same names"
            f" on the same port comes before ({hidden_by[0].where})"
        )
        return unsure(run, upstream, why, NAMESAKE), None
    candidates = tuple(
        template for route in routes for template in templates.candidates(route, conf)
    )
    if not candidates:
        tried = "; ".join(templates.obstacle(route, conf) for route in routes)
        why = f"no request could be made for {tried}"
        texts = templates.choosing(routes[0])
        geo = templates.deciding_geo(texts, routes[0], conf)
        hint = by_address(geo) if geo is not None else NO_REQUEST
        return unsure(run, upstream, why, hint), None
    await_listeners(run, upstream, candidates)
    attempt = UpstreamRun(run, upstream, conf, servers)
    judged, template = attempt.judge(candidates)
    return judged, (attempt, template)


def unjudgeable(run: Run, upstream: Upstream) -> tuple[str, str] | None:
    """Why an upstream cannot have a verdict before any request, and a hint; None if it can."""
    prerequisite = run.survey.prerequisites.get(upstream.name)
    if prerequisite and not exists(prerequisite.name, run.assumed):
        return prerequisite.cause, prerequisite.hint
    places = run.survey.places[upstream.name]
    if without_stub := [place for place in places if place.reason]:
        return f"server {without_stub[0].server}: {without_stub[0].reason}", NO_STUB
    if line := service_line(run.config, upstream):
        return f"server {' '.join(line.args)}: the lab's name server has no SRV records", SRV
    endpoints = {str(endpoint): place.server for place in places for endpoint in place.endpoints}
    live = [server.name for server in upstream.servers if not server.down]
    if not live:
        return "every server is marked down, so nginx answers 502", ALL_DOWN
    if len(set(endpoints.values())) < len(live):
        return "two servers have the same address and cannot be distinguished", SAME_ADDRESS
    return None


def service_line(config: tree.Config, upstream: Upstream) -> Directive | None:
    """The first `server` line of an upstream whose addresses are in SRV records."""
    blocks = config.block("http").all("upstream")
    lines = (
        line
        for block in blocks
        if block.args[:1] == (upstream.name,)
        for line in block.all("server")
    )
    return next(
        (line for line in lines if any(word.startswith("service=") for word in line.args)), None
    )


def await_listeners(run: Run, upstream: Upstream, candidates: Sequence[Template]) -> None:
    """Return once nginx listens; without a zone, with one worker running."""
    for entry in dict.fromkeys(template.entry for template in candidates):
        run.sandbox.await_nginx(entry.host, entry.port)
    if not upstream.zone and run.survey.workers != "1":
        run.sandbox.hold_workers(run.survey.workers)


@dataclass(frozen=True, slots=True)
class UpstreamEvidence:
    """The hits of an upstream; with a debug log, nginx's order of picks and the log's lines."""

    hits: tuple[Hit, ...]
    order: Sequence[Step] | None
    trace: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class UpstreamRun:
    """Traffic for one upstream; `servers` holds the `server` text behind each stub backend."""

    run: Run
    upstream: Upstream
    conf: Variables
    servers: Mapping[str, str]

    def judge(self, candidates: Sequence[Template]) -> tuple[UpstreamVerdict, Template]:
        """The verdict, and the template of the requests.

        Without a PASS it is tried again, with more requests if these decide, else at the next lower
        concurrency, unless nginx's own order of picks is a FAIL.
        """
        fresh = self.run.fresh(self.upstream, self.servers)
        probes, records = self.probe(candidates)
        template, _ = probes[-1]
        if not any(
            self.reached(planned, records) for tried, planned in probes if tried is template
        ):
            why, hint = self.unreached(template, records)
            return unsure(self.run, self.upstream, why, hint), template
        result: UpstreamVerdict | None = None
        sent_before = [planned for _, planned in probes]
        trials = deque(traffic.trials(self.upstream, traced=self.run.sandbox.traced))
        while trials:
            trial = trials.popleft()
            sent = traffic.method_traffic(self.upstream, template, self.conf, self.run.seed, trial)
            records += self.send(template, sent)
            sent_before += sent.requests
            judged, ordered = self.weigh(template, sent_before, records, trial, fresh)
            # no later times outweigh nginx's own order, unless requests of `mirror` are part of it
            final = ordered and not templates.is_on(template.route, "mirror")
            if judged.verdict.word == Word.PASS or (judged.verdict.word == Word.FAIL and final):
                return judged, template
            result = judged if result is None or judged.verdict.word == Word.FAIL else result
            # what follows is judged without it
            if judged.verdict.word == Word.FAIL or broken(records):
                sent_before, records, fresh = [], [], False
            elif part := traffic.continued(trial, judged.verdict):
                trials.appendleft(part)
        return result or judged, template

    def send(self, template: Template, sent: Traffic) -> list[dict[str, Any]]:
        """Send requests; remember which other upstreams' stub backends answered."""
        records = self.run.sandbox.send(traffic.plan(template, sent))
        self.run.strayed.update({record.get("server", "") for record in records} - {*self.servers})
        return records

    def fail_over(self, template: Template, judged: UpstreamVerdict) -> UpstreamVerdict:
        """The verdict, extended by what nginx did while servers refused connections."""
        texts: list[str] = []
        faults: list[str] = []
        # other locations may have other rules of retry
        rules = next_upstream(template.route.scopes)
        drills = failover.drills(replace(self.upstream, next_upstream=rules))
        for number, drill in enumerate(drills, 1):
            endpoints = [
                endpoint for endpoint, name in self.servers.items() if name in drill.closed
            ]
            self.run.sandbox.refuse_connections(endpoints)
            sent = traffic.plain_traffic(
                self.upstream,
                template,
                self.conf,
                self.run.seed,
                failover.REQUESTS,
                first=number * FAR_BEYOND,
            )
            records = traffic.uncached(self.run.sandbox.send(traffic.plan(template, sent)))
            answers = [
                (self.servers.get(record.get("server", ""), ""), record["status"])
                for record in records
                if not self.elsewhere(record)
            ]
            text, fault = failover.outcome(drill, answers)
            texts.append(text)
            faults += [fault] if fault else []
        if not texts:
            return judged
        verdict = judged.verdict
        if faults:
            verdict = replace(verdict, word=Word.FAIL, why=f"fail-over: {faults[0]}")
        return replace(judged, verdict=verdict, failover="; ".join(texts))

    def weigh(
        self,
        template: Template,
        sent: Sequence[PlannedRequest],
        records: Sequence[Record],
        trial: traffic.Trial,
        fresh: bool,
    ) -> tuple[UpstreamVerdict, bool]:
        """Judge the upstream's responses; those from elsewhere are reported separately.

        Also return whether nginx's own order of picks was the evidence.
        """
        evidence = self.evidence(template, sent, records, trial)
        hits, sequential = evidence.hits, trial.concurrency == 1
        addresses = self.addresses(records)
        claim = traffic.claim(self.upstream)
        outcome = verdict.judge(
            claim,
            hits,
            sequential=sequential,
            addresses=addresses,
            fresh=fresh,
            order=evidence.order,
        )
        kept = write_run_folder(
            claim,
            hits,
            traffic=f"{len(sent)} requests",
            sequential=sequential,
            fresh=fresh,
            addresses=addresses,
            files=self.run.sandbox.files,
            trace=evidence.trace,
        )
        counted = {hit.request_id for hit in hits}
        besides = self.refusals([record for record in records if record["id"] not in counted])
        place = where(self.upstream, self.run.survey)
        hint = self.hint(template, outcome) if outcome.word == Word.UNSURE else ""
        per_hit = templates.requests_per_hit(template, self.conf)
        # not of those planned: time may have run out
        answered = len(records)
        if outcome.word != Word.FAIL and len(hits) * max(2 * per_hit, FEWEST_ARRIVE) < answered:
            why = f"{len(hits):,} of {answered:,} requests reached it"
            hint = self.few_hint(template)
            outcome = replace(outcome, word=Word.UNSURE, why=why)
        if outcome.word == Word.FAIL and (lost := broken(records)):
            why = f"{lost:,} of {len(sent):,} requests ended inside nginx, perhaps after a pick"
            outcome, hint = replace(outcome, word=Word.UNSURE, why=why), BROKEN
        # its command is one for the lab's own nginx
        outcome = replace(outcome, command="")
        judged = UpstreamVerdict(
            self.upstream.name, place, outcome, besides, hint, folder=str(kept)
        )
        return judged, evidence.order is not None

    def evidence(
        self,
        template: Template,
        sent: Sequence[PlannedRequest],
        records: Sequence[Record],
        trial: traffic.Trial,
    ) -> UpstreamEvidence:
        """The hits of the upstream, with what nginx's own logs add to them."""
        hits = tuple(traffic.hits(self.upstream, template, self.conf, sent, records, self.servers))
        lines = self.run.sandbox.debug_log() if trial.traced else []
        if templates.is_on(template.route, "auth_request"):
            lines = without_auth_requests(lines)
        targets = {planned.id: planned.request.uri.encode() for planned in sent}
        hits, order = joined(lines, hits, targets) if lines else (hits, None)
        if self.upstream.record.by_time:
            hits = timed(self.run.sandbox.access_log(), hits, targets)
        return UpstreamEvidence(hits, order, tuple(lines) if order else ())

    def hint(self, template: Template, verdict: Verdict) -> str:
        """What to do where the evidence decides too little."""
        if unreadable(traffic.claim(self.upstream).sticky):
            return BINDING
        if verdict.needed > traffic.MOST:
            return f"only about {verdict.needed:,} requests would decide it; {ALLOW}"
        return LIMITED if templates.is_on(template.route, "limit_req") else AGAIN

    def few_hint(self, template: Template) -> str:
        """What to do where few requests reach the upstream."""
        if templates.by_chance(template, self.conf):
            return RARE
        if templates.is_on(template.route, "proxy_cache"):
            return CACHED
        if templates.is_on(template.route, "limit_conn"):
            return LIMITED.replace("limit_req", "limit_conn")
        return LIMITED if templates.is_on(template.route, "limit_req") else REFUSED

    def body_chooses(self, template: Template) -> bool:
        """Whether the request's body is to choose the upstream, which nginx cannot do."""
        texts = templates.choosing(template.route)
        return "request_body" in traffic.sources(texts, template, self.conf)

    def unreached(self, template: Template, records: Sequence[Record]) -> tuple[str, str]:
        """Why no request reached the upstream, as far as can be told, and a hint."""
        why, hint = f"no request reached it: {self.refusals(records)}", REFUSED
        if self.body_chooses(template):
            return why, BODY_UNREAD
        if reason := templates.undecided(template, self.conf):
            return f"{why}; {reason}", RARE
        line = templates.refusing(template, self.conf)
        if line is not None:
            why = f"{why}; {templates.shown(line)} is in effect there"
        if line is not None and line.name == "deny":
            return why, ACCESS
        if broken(records) and templates.is_on(template.route, "proxy_bind"):
            return f"{why}; proxy_bind needs an address that the lab's nginx lacks", UNBOUND
        texts = templates.choosing(template.route)
        geo = templates.deciding_geo(texts, template.route, self.conf)
        return why, by_address(geo) if geo is not None else hint

    def addresses(self, records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
        """The addresses that nginx used for each server's name, else the first."""
        asked = {record.get("server") for record in records}
        endpoints: dict[str, list[str]] = {}
        for endpoint, name in self.servers.items():
            endpoints.setdefault(name, []).append(endpoint)
        return {
            name: tuple(endpoint for endpoint in endpoints if endpoint in asked) or (endpoints[0],)
            for name, endpoints in endpoints.items()
        }

    def probe(
        self, candidates: Sequence[Template]
    ) -> tuple[list[tuple[Template, PlannedRequest]], list[Record]]:
        """Try the candidates in turn, up to the first that leads to a server of the upstream."""
        tried: list[tuple[Template, PlannedRequest]] = []
        records: list[Record] = []
        for template in candidates:
            sent = traffic.probes(self.upstream, template, self.conf, len(tried) + 1)
            tried += [(template, planned) for planned in sent]
            records += self.send(template, Traffic(sent, 1))
            if any(self.reached(planned, records) for planned in sent):
                break
        return tried, records

    def elsewhere(self, record: Record) -> bool:
        """Whether a server of another upstream answered a request."""
        return bool(record.get("server")) and record["server"] not in self.servers

    def reached(self, planned: PlannedRequest, records: Sequence[Record]) -> bool:
        """Whether a server of the upstream answered a request."""
        return any(
            record["id"] == planned.id and record.get("server") in self.servers
            for record in records
        )

    def refusals(self, records: Sequence[Record]) -> str:
        """The responses that did not come from the upstream, counted by kind."""
        counts = Counter(map(self.refusal, records))
        return ", ".join(f"{reason}: {number:,}" for reason, number in counts.items())

    def refusal(self, record: Record) -> str:
        """What one request got instead of a response from the upstream."""
        if record.get("server") in self.servers:
            return "answered from a cache"
        if record.get("server"):
            return f"answered by {self.run.name_of(record['server'])}"
        to = f" to {record['location']}" if record.get("location") else ""
        return str(record.get("error") or f"answered by nginx with {record['status']}{to}")


def by_address(geo: Directive) -> str:
    """What to do where a `geo` decides by addresses that the lab's clients do not have."""
    return (
        f"in a copy of the file, give the lab's clients the value in {templates.shown(geo)}, as"
        f" 127.0.0.0/8 VALUE; {ALLOW}"
    )


def broken(records: Iterable[Record]) -> int:
    """How many requests nginx ended with 500 or without a response: their picks are unknown."""
    ended = (record for record in records if not record.get("server"))
    return sum(bool(record.get("error")) or record["status"] == INTERNAL_ERROR for record in ended)


def unsure(run: Run, upstream: Upstream, why: str, hint: str) -> UpstreamVerdict:
    """UNSURE without evidence, and what the user can do."""
    verdict = Verdict(Word.UNSURE, upstream.label, "", why)
    return UpstreamVerdict(upstream.name, where(upstream, run.survey), verdict, hint=hint)


def where(upstream: Upstream, survey: Survey) -> str:
    """The place of an upstream's block, else of the `proxy_pass` that makes the group."""
    if upstream.line:
        return f"{upstream.file}:{upstream.line}"
    return survey.routes[upstream.name.lower()][0].where


def hints(upstream: Upstream, survey: Survey) -> Iterator[str]:
    """Hints on an upstream beside its verdict."""
    if upstream.name.lower() not in survey.routes or len(upstream.servers) < 2:
        return
    if not upstream.zone and survey.workers != "1" and not upstream.record.stateless:
        yield (
            f"upstream {upstream.name} has no zone, so each worker counts separately: one was"
            f" judged alone. To share the state: zone {upstream.name} 64k;"
        )
