"""Evaluate nginx variables for one request, to bytes, as nginx would."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from ..errors import UndecidedError, UsageError
from . import prompt, tree
from . import request as of
from .maps import BLOCKS, captures, constant, pattern
from .request import Evaluator, Request
from .routes import (
    CAPTURE,
    DEFAULT_PORTS,
    VARIABLE,
    Route,
    authority,
    effective,
    everything,
    routes,
)
from .tree import Config, Directive
from .upstream import size

__all__ = [
    "Evaluator",
    "Request",
    "Variables",
    "compile_text",
    "compile_variable",
    "evaluate",
    "merges_slashes",
    "read",
]


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of a config, in addition to nginx's own, for requests of one upstream.

    `definitions` are the map, geo, split_clients and js_set directives by the variable they define;
    `settable` every variable that some `set` or a capture elsewhere names, and `undecided` those
    that other directives set, such as auth_request_set; `route` the route to the upstream, if the
    config has one: the directives of its server and location are in effect. Without a route,
    `around` has the directives in effect.
    """

    definitions: Mapping[str, Directive] = field(default_factory=dict)
    settable: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()
    route: Route | None = None
    upstream: str = "llm"
    around: tuple[Directive, ...] = ()

    def lines(self, name: str) -> tuple[Directive, ...]:
        """The directives of that name in effect on the route."""
        if self.route:
            return effective(self.route.scopes, name)
        return tuple(line for line in self.around if line.name == name)


Test = Callable[[Request], bool]

# two pages of memory
BODY_BUFFER = 2 * 4096
REFERENCE = re.compile(r"\$(?:\{([^}]*)(\}?)|(\d)|(\w+)|)", re.ASCII)
UNKNOWABLE = frozenset(
    {"request_id", "request_length", "request_time", "connection", "connection_requests", "pid"}
    | {"connection_time", "msec", "time_local", "time_iso8601", "remote_port", "hostname"}
    | {"bytes_sent", "body_bytes_sent", "status", "request_completion", "server_addr"}
    | {"nginx_version", "pipe", "time_gmt", "date_local", "date_gmt", "gzip_ratio", "secure_link"}
    | {"document_root", "realpath_root", "request_filename", "request_body_file", "request_port"}
    | {
        "secure_link_expires",
        "uid_got",
        "uid_set",
        "uid_reset",
        "invalid_referer",
        "http2",
        "http3",
    }
    | {"limit_rate", "limit_req_status", "limit_conn_status", "is_request_port", "modern_browser"}
    | {"msie", "ancient_browser", "memcached_key", "slice_range", "proxy_internal_body_length"}
)
UNKNOWABLE_FAMILIES = (
    *("upstream_", "sent_http_", "sent_trailer_", "trailer_", "ssl_", "realip_", "tcpinfo_"),
    *("proxy_protocol_", "geoip_", "geoip2_", "connections_", "jwt_", "fastcgi_", "otel_", "quic_"),
)
MATCHING = ("server_name", "location", "if")  # whose captures are followed
REWRITTEN = ("uri", "document_uri", "args")


def read(conf: Path | Config, upstream: str) -> Variables:
    """The variables in effect where the config passes to `upstream`.

    If several locations do, the last one counts, as for the retry rules.
    """
    config = conf if isinstance(conf, Config) else tree.read(conf)
    http = config.block("http")
    route_of = {route.upstream.lower(): route for route in routes(config)}
    definitions = [
        directive for directive in http.block or () if directive.name in DEFINING and directive.args
    ]
    every = tuple(everything(http))
    settable = {
        _bare(line.args[0]) for line in every if line.name == "set" and len(line.args) == 2
    } | set(_captured(line for line in every if line.name in MATCHING))
    undecided = {
        _bare(line.args[0])
        for line in every
        if line.name.endswith(("_set", "_var")) and line.name not in DEFINING and line.args
    } | set(_captured(line for line in every if line.name not in MATCHING))
    return Variables(
        definitions={
            _bare(line.args[0 if line.name == "js_set" else -1]): line for line in definitions
        },
        settable=frozenset(settable),
        undecided=frozenset(undecided),
        route=route_of.get(upstream.lower()),
        upstream=upstream,
    )


def _captured(lines: Iterable[Directive]) -> Iterator[str]:
    """The names of the groups in the regexes of directives."""
    for line in lines:
        yield from map(str.lower, CAPTURE.findall(" ".join((line.name, *line.args))))


def evaluate(text: str, request: Request, conf: Variables) -> bytes:
    """The value of a text with variables ("$scheme$proxy_host$request_uri") for one request."""
    return compile_text(text, conf)(request)


def compile_text(text: str, conf: Variables, where: str = "") -> Evaluator:
    """Compile a text with variables to a function that evaluates it.

    UsageError, naming `where`, for a variable that neither nginx nor the config defines.
    """
    return _after_rewrites(conf, where).text(text)


def compile_variable(name: str, conf: Variables, where: str = "") -> Evaluator:
    """Return a function that evaluates one variable, such as "$cookie_my-session"."""
    return _after_rewrites(conf, where).variable(_bare(name))


def merges_slashes(conf: Variables) -> bool:
    """Whether double slashes count as one, which `merge_slashes off` prevents."""
    return not any(line.args == ("off",) for line in conf.lines("merge_slashes"))


def conditions(tests: Iterable[Directive], conf: Variables) -> Callable[[Request], list[bool]]:
    """A function that tells which of these `if` hold for a request; unreadable ones are omitted."""
    readable: list[Test] = []
    for test in tests:
        with suppress(UsageError):
            readable.append(_condition(test, _after_rewrites(conf, ""))[0])
    return lambda request: [test(request) for test in readable]


class _Scope:
    """The variables that are defined at one point of a config."""

    def __init__(
        self,
        conf: Variables,
        where: str,
        names: Mapping[str, Evaluator | UsageError] = MappingProxyType({}),
        busy: set[str] | None = None,
    ) -> None:
        self.conf = conf
        self.where = where
        self.names = names
        self.busy = set() if busy is None else busy
        self.compiled: dict[str, Evaluator] = {}

    def with_variables(self, names: Mapping[str, Evaluator | UsageError]) -> "_Scope":
        """The scope with more variables, which hide those of the same name."""
        return _Scope(self.conf, self.where, {**self.names, **names}, self.busy)

    def text(self, text: str) -> Evaluator:
        """The function that evaluates a text with variables."""
        parts: list[bytes | Evaluator] = []
        end = 0
        for match in REFERENCE.finditer(text):
            parts.append(of.raw(text[end : match.start()]))
            parts.append(self.variable(self._name(match)))
            end = match.end()
        parts.append(of.raw(text[end:]))
        return _joined([part for part in parts if part != b""])

    def variable(self, name: str) -> Evaluator:
        """The function that evaluates one variable, by its name in lower case."""
        if name not in self.compiled:
            if name in self.busy:
                raise self._error(f'cycle while evaluating variable "{name}"')
            self.busy.add(name)
            try:
                self.compiled[name] = self._find(name)
            finally:
                self.busy.discard(name)
        return self.compiled[name]

    def _name(self, match: re.Match[str]) -> str:
        braced, brace, digit, name = match.groups()
        if braced is not None and not brace:
            fault = f'the closing bracket in "{braced}" variable is missing'
            raise self._error(fault, "write ${name}, as in ${request_uri}")
        if not (chosen := braced or digit or name):
            raise self._error("invalid variable name", "write a name after $, as in $request_uri")
        return str(chosen).lower()

    def _find(self, name: str) -> Evaluator:
        """Look a variable up: later definitions hide earlier ones."""
        known = self.names.get(name)
        if isinstance(known, UsageError):
            raise known
        if known is not None:
            return known
        if (block := self.conf.definitions.get(name)) is not None:
            return DEFINING[block.name](block, self)
        if name in BUILTINS:
            return BUILTINS[name]
        if name in SCOPED:
            return SCOPED[name](self)
        for family, make in FAMILIES.items():
            if name.startswith(family):
                return make(name.removeprefix(family), self)
        if name in self.conf.settable or name.isdigit():
            return constant(b"")
        raise self.unknown(name)

    def unknown(self, name: str) -> UsageError:
        """The error for a variable that is not defined, or whose value cannot be told."""
        known = name in UNKNOWABLE or name in self.conf.undecided
        if known or name.startswith(UNKNOWABLE_FAMILIES):
            hint = 'give the value itself, as "key" on each line'
            fault = f'variable "${name}" cannot be told from the request'
            return UndecidedError(f"{fault} in {self.where}" if self.where else fault, hint)
        return self._error(f'unknown "{name}" variable', "define it with map or set")

    def _error(self, fault: str, hint: str = "") -> UsageError:
        return UsageError(f"{fault} in {self.where}" if self.where else fault, hint)


def _bare(name: str) -> str:
    return name.removeprefix("$").lower()


def _joined(parts: list[bytes | Evaluator]) -> Evaluator:
    """One function for a text in pieces; a single variable is returned as it is."""
    pieces = [constant(part) if isinstance(part, bytes) else part for part in parts]
    if len(pieces) == 1:
        return pieces[0]
    return lambda request: b"".join([piece(request) for piece in pieces])


# nginx's own variables: those of the request alone, then those that also need the config


def _uri(scope: _Scope) -> Evaluator:
    merges = merges_slashes(scope.conf)
    return lambda request: of.path(request, merge_slashes=merges)


def _argument(name: str, scope: _Scope) -> Evaluator:
    find, query = of.argument(name), scope.variable("args")
    return lambda request: find(query(request))


def _header(name: str, scope: _Scope) -> Evaluator:
    lines = scope.conf.lines("underscores_in_headers")
    return of.header(name, underscores=any(line.args == ("on",) for line in lines))


def _is_args(scope: _Scope) -> Evaluator:
    query = scope.variable("args")
    return lambda request: b"?" if query(request) else b""


def _host(scope: _Scope) -> Evaluator:
    name = _server_name(scope)
    return lambda request: of.host(request) or name(request)


def _server_name(scope: _Scope) -> Evaluator:
    return constant(of.raw(scope.conf.route.server_name.lower()) if scope.conf.route else b"")


def _is_tls(scope: _Scope) -> bool:
    return scope.conf.route is not None and "ssl" in scope.conf.route.listen[0].options


def _server_port(scope: _Scope) -> Evaluator:
    port = scope.conf.route.listen[0].port if scope.conf.route else 0
    return constant(str(port).encode() if port else b"")


def _proxy_protocol_addr(scope: _Scope) -> Evaluator:
    """The client's address by the PROXY protocol; unknown if not every `listen` uses it."""
    listens = scope.conf.route.listen if scope.conf.route else ()
    told = {"proxy_protocol" in listen.options for listen in listens}
    if len(told) > 1:
        raise scope.unknown("proxy_protocol_addr")
    return of.remote_addr if True in told else constant(b"")


def _request_body(scope: _Scope) -> Evaluator:
    """$request_body; empty if the body is too long for memory and nginx wrote it to a file."""
    if any(line.args != ("off",) for line in scope.conf.lines("client_body_in_file_only")):
        return constant(b"")
    lines = scope.conf.lines("client_body_buffer_size")
    buffer = size(lines[-1].args[0]) if lines and lines[-1].args else None
    # a body below 5/4 of the setting gets a buffer of its own length
    limit = (BODY_BUFFER if buffer is None else buffer) * 5 // 4
    return lambda request: request.body if len(request.body) < limit else b""


def _script(line: Directive, scope: _Scope) -> Evaluator:
    """`js_set`: only the lab's own script can be evaluated."""
    if line.args[1:] != ("lab_prompt.prefix",):
        hint = 'give the value itself, as "key" on each line'
        raise UndecidedError(
            f'the lab does not run the script "{line.args[-1]}" of {line.where}', hint
        )
    uri, characters, skip = map(scope.variable, ("request_uri", "prompt_characters", "prompt_skip"))
    return lambda request: prompt.hashed_text(
        request.body, uri(request), int(characters(request)), int(skip(request))
    )


def _proxied(scope: _Scope, part: Callable[[str], str]) -> Evaluator:
    """A part of the proxy_pass URL, computed only once if it has no variables."""
    route = scope.conf.route
    text = route.proxy_pass if route else f"http://{scope.conf.upstream}"
    if "$" not in text:
        return constant(of.raw(part(text)))
    url = scope.text(text)
    return lambda request: of.raw(part(url(request).decode("utf-8", "surrogateescape")))


def _default_port(url: str) -> int:
    return DEFAULT_PORTS.get(url.partition("://")[0].lower(), 80)


def _proxy_host(url: str) -> str:
    return authority(url).removesuffix(f":{_default_port(url)}")


def _proxy_port(url: str) -> str:
    port = re.search(r":(\d+)\Z", authority(url), re.ASCII)
    return port[1] if port else str(_default_port(url))


DEFINING: Mapping[str, Callable[[Directive, _Scope], Evaluator]] = MappingProxyType(
    {**BLOCKS, "js_set": _script}
)
BUILTINS: Mapping[str, Evaluator] = MappingProxyType(
    {
        "request_uri": of.target,
        "args": of.args,
        "remote_addr": of.remote_addr,
        "binary_remote_addr": of.binary_remote_addr,
        "proxy_add_x_forwarded_for": of.forwarded_for,
        "request_method": lambda request: of.raw(request.method),
        "request": lambda request: of.raw(f"{request.method} {request.uri} HTTP/1.1"),
        "server_protocol": constant(b"HTTP/1.1"),
        "content_length": of.content_length,
        "content_type": of.header("content_type"),
        "remote_user": of.remote_user,
    }
)
SCOPED: Mapping[str, Callable[[_Scope], Evaluator]] = MappingProxyType(
    {
        "uri": _uri,
        "document_uri": lambda scope: scope.variable("uri"),
        "query_string": lambda scope: scope.variable("args"),
        "is_args": _is_args,
        "host": _host,
        "server_name": _server_name,
        "server_port": _server_port,
        "scheme": lambda scope: constant(b"https" if _is_tls(scope) else b"http"),
        "https": lambda scope: constant(b"on" if _is_tls(scope) else b""),
        "proxy_protocol_addr": _proxy_protocol_addr,
        "request_body": _request_body,
        "proxy_host": lambda scope: _proxied(scope, _proxy_host),
        "proxy_port": lambda scope: _proxied(scope, _proxy_port),
    }
)
FAMILIES: Mapping[str, Callable[[str, _Scope], Evaluator]] = MappingProxyType(
    {
        "arg_": _argument,
        "http_": _header,
        "cookie_": lambda name, _scope: of.cookie(name),
    }
)


# What the server and the location of the route do before nginx picks: captures, set, if


def _after_rewrites(conf: Variables, where: str) -> _Scope:
    """The variables after the rewrite phase."""
    scope = _Scope(conf, where)
    if conf.route is None:
        return scope
    server = conf.route.scopes[1]
    for line in server.all("server_name"):
        for name in line.args:
            scope = _matched(scope, name, scope.variable("host"), line)
    scope = _redirected(_rewritten(scope, server, None)[0], conf.route)
    # nginx runs the rewrite lines of the innermost location only
    locations = [block for block in conf.route.scopes if block.name == "location"]
    for location in locations:
        scope = _matched(scope, "".join(location.args), scope.variable("uri"), location)
    for location in locations[-1:]:
        scope, _ = _rewritten(scope, location, None)
    return scope


def _redirected(scope: _Scope, route: Route) -> _Scope:
    """The scope in a named or internal location: `set` and `rewrite` of others came before."""
    locations = [block for block in route.scopes if block.name == "location"]
    internal = any(block.all("internal") for block in locations)
    if not internal and not "".join(locations[-1].args if locations else ()).startswith("@"):
        return scope
    others = (
        block
        for block in everything(route.scopes[1])
        if block.name == "location" and block not in locations
    )
    for line in (line for block in others for line in everything(block)):
        error = UndecidedError(f'the lab does not follow "{line.name}" in {line.where}')
        if line.name == "set" and line.args:
            scope = scope.with_variables({_bare(line.args[0]): error})
        elif line.name == "rewrite":
            scope = scope.with_variables(dict.fromkeys(REWRITTEN, error))
    return scope


def _matched(scope: _Scope, text: str, subject: Evaluator, line: Directive) -> _Scope:
    """Add the captures of a regex `server_name` or `location`."""
    if not text.startswith("~") or "(" not in text:
        return scope
    ignore_case = text.startswith("~*") or line.name == "server_name"
    regex = pattern(text.lstrip("~*"), ignore_case=ignore_case, where=line.where)
    return scope.with_variables(captures(regex, subject))


def _rewritten(scope: _Scope, block: Directive, test: Test | None) -> tuple[_Scope, Test | None]:
    """The scope after the `set`, `if` and `rewrite` lines of a block, in their order.

    `test` tells whether nginx runs them for a request; None if for every one. Also return the test
    for the lines that follow: after a `break` they do not run.
    """
    for line in block.block or ():
        if line.name == "break":
            return scope, lambda _request: False
        if line.name == "set" and len(line.args) == 2:
            scope = scope.with_variables({_bare(line.args[0]): _assigned(line, scope, test)})
        elif line.name == "if" and line.block is not None:
            scope, test = _branched(scope, line, test)
        elif line.name == "rewrite":
            changed = _rewritten_by(line, block, scope, test)
            test = _both(test, _unmatched(line, scope)) if "break" in line.args[2:] else test
            scope = scope.with_variables(changed)
    return scope, test


def _unmatched(line: Directive, scope: _Scope) -> Test:
    """Whether the regex of a `rewrite` does not match; UsageError where the path is not known."""

    def unmatched(request: Request) -> bool:
        regex = pattern(line.args[0], ignore_case=False, where=line.where)
        return regex.search(scope.variable("uri")(request)) is None

    return unmatched


def _rewritten_by(
    line: Directive, block: Directive, scope: _Scope, test: Test | None
) -> Mapping[str, Evaluator | UsageError]:
    """What a `rewrite` changes; UsageErrors unless the lab follows it: the last of a location."""
    error = UsageError(f'the lab does not follow "rewrite" in {line.where}')
    unknown = dict.fromkeys(REWRITTEN, error)
    lines = block.block or ()
    after = lines[lines.index(line) + 1 :]
    redirects = "".join(line.args[1:2]).startswith(("http://", "https://", "$scheme"))
    if test or block.name != "location" or line.args[2:] != ("break",) or redirects:
        return unknown
    if any(other.name in ("set", "if", "rewrite") for other in after) or _cached(block, scope):
        return unknown
    try:
        return _after_break(line, scope)
    except UsageError:
        return unknown


def _cached(location: Directive, scope: _Scope) -> bool:
    """Whether an `if` or `set` evaluates a map before the rewrite: nginx keeps its value."""
    server = scope.conf.route.scopes[1] if scope.conf.route else location
    lines = (line for block in (server, location) for line in block.block or ())
    tests = (line for line in lines if line.name in ("if", "set"))
    texts = (" ".join(inner.args) for test in tests for inner in (test, *everything(test)))
    names = ((match[1] or match[2]).lower() for text in texts for match in VARIABLE.finditer(text))
    return any(name in scope.conf.definitions for name in names)


def _after_break(line: Directive, scope: _Scope) -> Mapping[str, Evaluator]:
    """The path, the arguments and the captures after a `rewrite REGEX TEXT break`.

    The old arguments follow those of the text, unless it ends with "?"
    (ngx_http_script_regex_end_code).
    """
    regex = pattern(line.args[0], ignore_case=False, where=line.where)
    old_uri, old_args = scope.variable("uri"), scope.variable("args")
    groups = captures(regex, old_uri)
    new = scope.with_variables(groups)
    path, _, query = line.args[1].removesuffix("?").partition("?")
    new_uri, new_args = new.text(path), new.text(query)
    adds = not line.args[1].endswith("?")

    def uri(request: Request) -> bytes:
        return new_uri(request) if regex.search(old_uri(request)) else old_uri(request)

    def args(request: Request) -> bytes:
        if regex.search(old_uri(request)) is None:
            return old_args(request)
        parts = (new_args(request), old_args(request) if adds else b"")
        return b"&".join(part for part in parts if part)

    return {**groups, "uri": uri, "document_uri": uri, "args": args}


def _assigned(line: Directive, scope: _Scope, test: Test | None) -> Evaluator | UsageError:
    """The value after a `set`; under an `if` whose condition fails, the old value.

    A value that cannot be evaluated is an error only when the variable is used.
    """
    name, text = line.args
    try:
        new = scope.text(text)
        if test is None:
            return new
        old = scope.variable(_bare(name))
    except UsageError as error:
        return error
    return lambda request: new(request) if test(request) else old(request)


def _branched(scope: _Scope, line: Directive, test: Test | None) -> tuple[_Scope, Test | None]:
    """The scope after an `if`, with the captures of its regex, and the test for what follows."""
    try:
        holds, captures = _condition(line, scope)
    except UsageError as error:
        names = [_bare(inner.args[0]) for inner in line.all("set") if inner.args]
        breaks = any("break" in (inner.name, *inner.args[2:]) for inner in line.block or ())
        after = _both(test, _raising(error)) if breaks else test
        return scope.with_variables(dict.fromkeys(names, error)), after
    inside = _both(test, holds)
    scope, after = _rewritten(scope.with_variables(captures), line, inside)
    if after is None or after is inside:
        return scope, test
    return scope, _both(test, lambda request: not holds(request) or after(request))


def _raising(error: UsageError) -> Test:
    """The test for which a condition would have to hold that cannot be evaluated."""

    def refuse(_request: Request) -> NoReturn:
        raise error

    return refuse


def _both(test: Test | None, other: Test) -> Test:
    """The test for which two tests have to hold."""
    return other if test is None else lambda request: test(request) and other(request)


def _condition(line: Directive, scope: _Scope) -> tuple[Test, dict[str, Evaluator]]:
    """Read `if ($x)`, `($x = text)`, `($x != text)`, `($x ~ regex)` and its variants."""
    words = _unbracketed(line)
    if len(words) not in (1, 3) or not words[0].startswith("$"):
        raise UsageError(f'the lab cannot evaluate "if ({" ".join(words)})" in {line.where}')
    left = scope.text(words[0])
    if len(words) == 1:
        return (lambda request: left(request) not in (b"", b"0")), {}
    _, operator, text = words
    if operator in ("=", "!="):
        right = scope.text(text)
        return (lambda request: (left(request) == right(request)) == (operator == "=")), {}
    if operator.removeprefix("!") not in ("~", "~*"):
        raise UsageError(f'unexpected "{operator}" in condition in {line.where}')
    regex = pattern(text, ignore_case=operator.endswith("*"), where=line.where)
    if operator.startswith("!"):
        return (lambda request: regex.search(left(request)) is None), {}
    return (lambda request: regex.search(left(request)) is not None), captures(regex, left)


def _unbracketed(line: Directive) -> list[str]:
    """The words of a condition without its brackets, which may be words of their own."""
    words = list(line.args)
    if not words or not words[0].startswith("(") or not words[-1].endswith(")"):
        raise UsageError(f'invalid condition "{" ".join(words)}" in {line.where}')
    words[0] = words[0][1:]
    words[-1] = words[-1][:-1]
    first = 0 if words[0] else 1
    last = len(words) if words[-1] else len(words) - 1
    return words[first:last]
