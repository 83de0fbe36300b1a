"""Judge the user's nginx.conf: survey it, serve it with a real nginx, judge each upstream."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

from ..errors import LabError, UsageError
from ..nginxconf import tree
from ..nginxconf.model import Upstream
from . import files
from .judging import Run, judge_all, where
from .result import Verification
from .sandbox import Sandbox
from .survey import Survey, listen_hosts, literal, relocation, resolver_hosts, split_address, survey
from .survey.environment import Environment
from .survey.prerequisites import Prerequisite, names_to_resolve, remaining
from .traffic import obstacles


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
        if routes and not any(map(obstacles.from_outside, routes)):
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


def hints(upstream: Upstream, survey: Survey) -> Iterator[str]:
    """Hints on an upstream beside its verdict."""
    if upstream.name.lower() not in survey.routes or len(upstream.servers) < 2:
        return
    if not upstream.zone and survey.workers != "1" and not upstream.record.stateless:
        yield (
            f"upstream {upstream.name} has no zone, so each worker counts separately: one was"
            f" judged alone. To share the state: zone {upstream.name} 64k;"
        )
