"""Judge the upstreams that a sandbox's nginx serves: send traffic, weigh what came back."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from .. import verdict
from ..errors import UsageError
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
from . import failover, next_steps, traffic
from .logs import joined, timed, without_auth_requests
from .result import UpstreamVerdict
from .run_folder import write_run_folder
from .sandbox import Sandbox
from .survey import Survey, speaks_tls
from .survey.prerequisites import ALLOW, exists
from .traffic import PlannedRequest, Traffic, entrances, obstacles, templates, upstream_choice
from .traffic.template import Template

INTERNAL_ERROR = 500
FAR_BEYOND = 1_000_000_000  # the numbers of requests before
FEWEST_ARRIVE = 4  # one of so many requests has to reach the upstream

Record = Mapping[str, Any]  # the client's record of one request


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
        subrequests = any(obstacles.subrequest_to(mine, route) for route in every)
        return not subrequests and self.strayed.isdisjoint(endpoints)

    @property
    def upstreams(self) -> Iterator[Upstream]:
        """The upstreams to judge, in the order of the config: those that clients can reach."""
        for upstream in self.survey.upstreams:
            routes = self.survey.routes.get(upstream.name.lower(), ())
            chosen = not self.only or upstream.name in self.only
            if chosen and any(map(obstacles.from_outside, routes)):
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
            by_sticky = upstream.sticky and not upstream.key
            hint = next_steps.BINDING if by_sticky else next_steps.UNDECIDED
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
    routes = [route for route in all_routes if obstacles.from_outside(route)]
    if not upstream.record.stateless:
        subrequests = [obstacles.subrequest_to(all_routes, route) for route in routes]
        routes = [route for route, line in zip(routes, subrequests, strict=True) if line is None]
        if not routes and (line := subrequests[0]) is not None:
            why = f"its turns are also taken by {line.name} {line.args[0]} ({line.where})"
            return unsure(run, upstream, why, next_steps.SUBREQUESTS), None
    if any(map(speaks_tls, routes)):  # which is all that its stub backends speak
        routes = [route for route in routes if speaks_tls(route)]
    servers_of_http = run.config.block("http").all("server")
    hidden_by = [entrances.earlier_namesake(route, servers_of_http) for route in routes]
    if all(hidden_by) and hidden_by[0] is not None:
        why = (
            f"nginx ignores its server ({routes[0].scopes[1].where}): another with the same names"
            f" on the same port comes before ({hidden_by[0].where})"
        )
        return unsure(run, upstream, why, next_steps.NAMESAKE), None
    candidates = tuple(
        template for route in routes for template in templates.candidates(route, conf)
    )
    if not candidates:
        tried = "; ".join(obstacles.obstacle(route, conf) for route in routes)
        why = f"no request could be made for {tried}"
        texts = obstacles.choosing(routes[0])
        geo = obstacles.deciding_geo(texts, routes[0], conf)
        hint = next_steps.by_address(geo) if geo is not None else next_steps.NO_REQUEST
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
        return f"server {without_stub[0].server}: {without_stub[0].reason}", next_steps.NO_STUB
    if line := service_line(run.config, upstream):
        return (
            f"server {' '.join(line.args)}: the lab's name server has no SRV records",
            next_steps.SRV,
        )
    endpoints = {str(endpoint): place.server for place in places for endpoint in place.endpoints}
    live = [server.name for server in upstream.servers if not server.down]
    if not live:
        return "every server is marked down, so nginx answers 502", next_steps.ALL_DOWN
    if len(set(endpoints.values())) < len(live):
        return (
            "two servers have the same address and cannot be distinguished",
            next_steps.SAME_ADDRESS,
        )
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
        outcome, hint = self.doubted(outcome, template, len(hits), len(sent), records)
        # its command is one for the lab's own nginx
        outcome = replace(outcome, command="")
        judged = UpstreamVerdict(
            self.upstream.name, place, outcome, besides, hint, folder=str(kept)
        )
        return judged, evidence.order is not None

    def doubted(
        self, verdict: Verdict, template: Template, hits: int, sent: int, records: Sequence[Record]
    ) -> tuple[Verdict, str]:
        """The verdict, but UNSURE if few requests reached the upstream or some ended inside nginx.

        Also return what the user can do; empty if there is nothing.
        """
        per_hit = upstream_choice.requests_per_hit(template, self.conf)
        answered = len(records)  # not those sent: time may have run out
        if verdict.word != Word.FAIL and hits * max(2 * per_hit, FEWEST_ARRIVE) < answered:
            why = f"{hits:,} of {answered:,} requests reached it"
            return replace(verdict, word=Word.UNSURE, why=why), self.few_hint(template)
        if verdict.word == Word.FAIL and (lost := broken(records)):
            why = f"{lost:,} of {sent:,} requests ended inside nginx, perhaps after a pick"
            return replace(verdict, word=Word.UNSURE, why=why), next_steps.BROKEN
        return verdict, self.hint(template, verdict) if verdict.word == Word.UNSURE else ""

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
            return next_steps.BINDING
        if verdict.needed > traffic.MOST:
            return f"only about {verdict.needed:,} requests would decide it; {ALLOW}"
        if templates.is_on(template.route, "limit_req"):
            return next_steps.limited("limit_req")
        return next_steps.AGAIN

    def few_hint(self, template: Template) -> str:
        """What to do where few requests reach the upstream."""
        if upstream_choice.by_chance(template, self.conf):
            return next_steps.RARE
        if templates.is_on(template.route, "proxy_cache"):
            return next_steps.CACHED
        limits = (
            name for name in ("limit_conn", "limit_req") if templates.is_on(template.route, name)
        )
        return next((next_steps.limited(name) for name in limits), next_steps.REFUSED)

    def body_chooses(self, template: Template) -> bool:
        """Whether the request's body is to choose the upstream, which nginx cannot do."""
        texts = obstacles.choosing(template.route)
        return "request_body" in traffic.sources(texts, template, self.conf)

    def unreached(self, template: Template, records: Sequence[Record]) -> tuple[str, str]:
        """Why no request reached the upstream, as far as can be told, and a hint."""
        why, hint = f"no request reached it: {self.refusals(records)}", next_steps.REFUSED
        if self.body_chooses(template):
            return why, next_steps.BODY_UNREAD
        if reason := upstream_choice.undecided(template, self.conf):
            return f"{why}; {reason}", next_steps.RARE
        line = obstacles.refusing(template, self.conf)
        if line is not None:
            why = f"{why}; {obstacles.shown(line)} is in effect there"
        if line is not None and line.name == "deny":
            return why, next_steps.ACCESS
        if broken(records) and templates.is_on(template.route, "proxy_bind"):
            return (
                f"{why}; proxy_bind needs an address that the lab's nginx lacks",
                next_steps.UNBOUND,
            )
        texts = obstacles.choosing(template.route)
        geo = obstacles.deciding_geo(texts, template.route, self.conf)
        return why, next_steps.by_address(geo) if geo is not None else hint

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
