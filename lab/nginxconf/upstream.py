"""Read an upstream as nginx does: its method, servers and retry rules."""

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UsageError
from . import methods, tree
from .methods import Method
from .model import NextUpstream, Server, Sticky, Upstream
from .routes import Route, effective, routes
from .tree import Config, Directive

Number = TypeVar("Number", int, float)

# directives that nginx takes inside `upstream` and that change no pick
IRRELEVANT = frozenset(
    {"resolver", "resolver_timeout"}
    | {"keepalive", "keepalive_requests", "keepalive_time", "keepalive_timeout"}
)
ONCE = frozenset({"keepalive", "least_time", "sticky"})
# directives and parameters of nginx's commercial edition only
COMMERCIAL = frozenset(
    {"queue", "state", "ntlm", "health_check", "match", "slow_start", "sync", "session_log"}
    | {"status_zone", "api", "keyval", "keyval_zone", "zone_sync", "f4f", "hls", "upstream_conf"}
)
# blocks of http and of the main file whose entries may be called `server`
WITH_SERVERS = ("http", "upstream", "stream", "mail", "rtmp", "server")
ENTRIES = frozenset({"map", "geo", "split_clients", "types", "charset_map"})
# where nginx takes a directive of http, and where to move it
PARENTS = {
    "upstream": (("http",), "move it into http, beside the server blocks"),
    "location": (("server", "location"), "move it into a server block"),
    "proxy_pass": (("location", "if", "limit_except"), "move it into a location"),
}
IMPOSSIBLE = re.compile(r"[$\x00-\x20\x7f]")  # in no host's name
STATUSES = frozenset(f"http_{code}" for code in (403, 404, 429, 500, 502, 503, 504))
CONDITIONS = STATUSES | {
    "error",
    "timeout",
    "invalid_header",
    "non_idempotent",
    "updating",
    "off",
}
# server parameters that take a number, with the least that nginx allows
NUMBERS = {"weight": 1, "max_fails": 0, "max_conns": 0}
FLAGS = frozenset({"backup", "down", "drain", "resolve"})
TEXTS = ("fail_timeout", "route", "service")
MEASURES = ("header", "last_byte", "connect", "first_byte")
COOKIE_FLAGS = ("httponly", "secure")
COOKIE_VALUES = ("expires", "domain", "path", "samesite")
INT_MAX = 2**63 - 1
MIN_ZONE = 8 * 4096
MAX_ROUTE = 32
MAX_UNIX_PATH = 108
UNIT_NAMES = ("y", "M", "w", "d", "h", "m(?!s)", "s", "ms")
TIME = re.compile(
    "".join(rf"(?:(\d{{1,18}}){unit} *)?" for unit in UNIT_NAMES) + r"(\d{1,18})?", re.ASCII
)
# year to millisecond, in milliseconds
UNITS = (31_536_000_000, 2_592_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1)


@dataclass(frozen=True, slots=True)
class _Balancing:
    """A balancing directive: its method, with its key or measure."""

    method: Method = methods.DEFAULT
    key: str = ""
    measure: str = ""


def read(conf: Path | Config, name: str | None = None) -> Upstream:
    """The HTTP upstream of that name; without a name, the only one.

    Blocks come before the implicit groups of `proxy_pass http://host`. If the choice is not clear,
    a UsageError lists the names, and the includes that could not be read.
    """
    config = conf if isinstance(conf, Config) else tree.read(conf)
    upstreams = read_all(config)
    choice = [upstream for upstream in upstreams if not upstream.stream]
    if name is None:
        choice = [upstream for upstream in choice if upstream.line] or choice
    else:
        choice = [upstream for upstream in choice if upstream.name.lower() == name.lower()]
    if len(choice) == 1:
        return choice[0]
    raise _unclear(config, name, upstreams)


def read_all(conf: Path | Config) -> tuple[Upstream, ...]:
    """Every upstream of a config, as nginx creates them; UsageError with nginx's refusal.

    First the `upstream` blocks of `http`; then the implicit groups of one server, for `proxy_pass`
    to a host without a block (`line` 0, no zone); last those of `stream`, marked as such.
    """
    config = conf if isinstance(conf, Config) else tree.read(conf)
    http = config.block("http")
    _refuse_unknown_blocks((*config.directives, *(http.block or ())))
    _refuse_impossible_hosts(config)
    _refuse_misplaced(http, "http")
    if misplaced := config.misplaced():
        raise _refusal('"upstream" directive is not allowed here', misplaced[0])
    blocks = _blocks(http)
    # where several locations pass to one upstream, the retry rules of the last one count
    route_of = {route.upstream: route for route in routes(config)}
    rules = {name: next_upstream(route.scopes) for name, route in route_of.items()}
    inherited = next_upstream((http,))
    upstreams = [replace(block, next_upstream=rules.get(block.name, inherited)) for block in blocks]
    declared = {upstream.name for upstream in blocks}
    upstreams += [
        _implicit(route, rules[name], config.file)
        for name, route in route_of.items()
        if name not in declared and "$" not in name
    ]
    upstreams += [replace(upstream, stream=True) for upstream in _blocks(config.block("stream"))]
    return tuple(upstreams)


def from_options(
    method: str,
    servers: Sequence[str],
    key: str | None = None,
    *,
    measure: str = "header",
    zone: bool = True,
) -> Upstream:
    """The upstream that `METHOD --servers …` describes, by nginx's own rules.

    Each server is the text of an nginx `server` line ("10.0.0.1:80 weight=3 down"). `method` is
    one of METHODS, and its file has the directive. `key` is for hash methods (None: the one in the
    file, which may need a map), `measure` for least_time.
    """
    if method not in methods.METHODS:
        hint = f"name one of {', '.join(methods.METHODS)}, or read a config with --conf"
        raise UsageError(f'unknown method "{method}"', hint)
    record = methods.METHODS[method]
    option = measure if record.takes == "measure" else record.key if key is None else key
    words = record.with_option(option)
    balancing = [Directive(words[0], words[1:], f'method "{method}"')] if words else []
    lines = [Directive("server", tuple(text.split()), f'--servers "{text}"') for text in servers]
    upstream = _upstream(Directive("upstream", ("llm",), "--servers", 0, (*balancing, *lines)))
    return replace(upstream, zone=zone, file="--key" if key else upstream.file)


def seconds(text: str, *, milliseconds: bool = True) -> float | None:
    """Read nginx's time syntax ("10", "1m30s", "500ms", "1h 30m"); None if it is not one."""
    match = TIME.fullmatch(text)
    if match is None or not text.strip() or (match[8] and not milliseconds):
        return None
    *parts, bare = match.groups()
    total = sum(int(part or 0) * unit for part, unit in zip(parts, UNITS, strict=True))
    total += int(bare or 0) * 1_000
    return total / 1_000 if total <= INT_MAX else None


def size(text: str) -> int | None:
    """Read nginx's size syntax ("16384", "64k", "1m") in bytes; None if it is not one."""
    match = re.fullmatch(r"(\d{1,18})([kKmM]?)", text, re.ASCII)
    if match is None:
        return None
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2].lower()]


def _unclear(config: Config, name: str | None, upstreams: Sequence[Upstream]) -> UsageError:
    """The error for an unclear choice of upstream; it names those in the config."""
    http = [upstream.name for upstream in upstreams if not upstream.stream]
    stream = [upstream.name for upstream in upstreams if upstream.stream]
    hint = f"name one of {', '.join(http)}" if http else "give a config with an upstream in http"
    if config.missing:
        hint += "; not readable: " + ", ".join(
            f"{missing.pattern} ({missing.reason}, included in {missing.where})"
            for missing in config.missing
        )
    if name is None and http:
        return UsageError(f"{len(http)} upstreams in {config.file}", hint)
    if name is None:
        return UsageError(f"no upstream in {config.file}", hint)
    if name in stream:
        return UsageError(f'upstream "{name}" in {config.file} belongs to stream, not http', hint)
    return UsageError(f'no upstream "{name}" in {config.file}', hint)


def _blocks(context: Directive) -> list[Upstream]:
    """The `upstream` blocks of `http` or `stream`, checked for rules between blocks."""
    seen: set[str] = set()
    for block in context.all("upstream"):
        _check_argument_count(block, 1, 1)
        name = block.args[0].lower()
        if block.block is None:
            raise _refusal('directive "upstream" has no opening "{"', block)
        if name in seen:
            hint = "give one of the two another name, or write all servers in one block"
            raise _refusal(f'duplicate upstream "{name}"', block, hint)
        seen.add(name)
    zones = [line for block in context.all("upstream") for line in block.all("zone")]
    sized = {line.args[0] for line in zones if len(line.args) == 2}
    for line in zones:
        if len(line.args) == 1 and line.args[0] not in sized:
            hint = "give it a size, as in zone llm 64k;"
            raise _refusal(f'zero size shared memory zone "{line.args[0]}"', line, hint)
    return [_upstream(block) for block in context.all("upstream")]


def _refuse_unknown_blocks(lines: Sequence[Directive]) -> None:
    """Refuse a misspelt block such as `upstreams`: nginx knows few blocks with `server` in them."""
    for line in lines:
        if line.name not in (*WITH_SERVERS, *ENTRIES) and line.all("server"):
            near = get_close_matches(line.name, WITH_SERVERS, 1)
            hint = f'is "{near[0]}" meant?' if near else "remove the block in a copy of the file"
            raise _refusal(f'unknown directive "{line.name}"', line, hint)


def _refuse_misplaced(block: Directive, around: str) -> None:
    """Refuse a directive in a block where nginx has no such directive, at any depth."""
    # without those, it is a file that is included in a server or location
    is_snippet = around == "http" and not (block.all("upstream") or block.all("server"))
    for line in block.block or ():
        if line.name in PARENTS and not is_snippet:
            parents, hint = PARENTS[line.name]
            if around not in parents:
                raise _refusal(f'"{line.name}" directive is not allowed here', line, hint)
        if line.name in ("server", "location", "if", "limit_except"):
            in_server = line.name == "if" and around == "server"
            _refuse_misplaced(line, "server if" if in_server else line.name)


def _refuse_impossible_hosts(config: Config) -> None:
    """Refuse impossible host names that nginx resolves at start, such as `server ${GPU}:8000`."""
    for line in _lines_with_hosts(Directive("", (), block=config.directives)):
        text = line.args[0] if line.args else ""
        later = text.lower().startswith("unix:") or "resolve" in line.args
        if not later and IMPOSSIBLE.search(text):
            template = "fill in the template first: envsubst < FILE | lab verify -"
            hint = template if "$" in text else "write a host's name or an address"
            raise _refusal(f'host not found in "{line.name} {text}"', line, hint)


def _lines_with_hosts(block: Directive) -> Iterator[Directive]:
    """The `server` and `listen` lines under a block; an entry of a map may have the same name."""
    for line in block.block or ():
        if line.name in ("server", "listen") and line.block is None:
            yield line
        elif line.name not in ENTRIES:
            yield from _lines_with_hosts(line)


def hint_on(directive: str) -> str:
    """What to do about a directive or a parameter that nginx does not know."""
    if directive in COMMERCIAL:
        return f"only NGINX Plus has {directive}: remove it in a copy of the file, and verify that"
    return "neither open source nginx nor the lab knows it: correct it, or remove it in a copy"


def _upstream(block: Directive) -> Upstream:
    """Read one block line by line; each line is checked in the context of those before it."""
    servers: list[Server] = []
    balancing = _Balancing()
    sticky: Sticky | None = None
    zone = False
    once: set[str] = set()
    for line in block.block or ():
        if line.block is not None:
            raise _refusal(f'directive "{line.name}" is not terminated by ";"', line)
        if line.name in once:
            raise _refusal(f'"{line.name}" directive is duplicate', line)
        once |= {line.name} & ONCE
        if line.name == "server":
            servers.append(_server(line, balancing.method))
        elif line.name in BALANCERS:
            # nginx lets a later method replace whatever an earlier line set up, sticky included
            balancing, sticky = BALANCERS[line.name](line), None
        elif line.name == "sticky":
            sticky = _sticky(line)
        elif line.name == "zone":
            zone = _zone(line)
        elif line.name not in IRRELEVANT:
            raise _refusal(f'unknown directive "{line.name}"', line, hint_on(line.name))
    upstream = Upstream(
        servers=tuple(servers),
        method=balancing.method.name,
        key=balancing.key,
        measure=balancing.measure,
        sticky=sticky,
        zone=zone,
        name=block.args[0],
        file=block.file,
        line=block.line,
    )
    _check(upstream, block)
    return upstream


def _check(upstream: Upstream, block: Directive) -> None:
    """Refuse what nginx refuses at the end of the block."""
    if all(server.backup for server in upstream.servers):
        hint = "a group needs a server that is not a backup"
        raise _refusal(f'no servers in upstream "{upstream.name}"', block, hint)
    names = [line.name for line in upstream.servers if line.resolve and not _is_literal(line.name)]
    if names and not upstream.zone:
        text = f'resolving names at run time requires upstream "{upstream.name}"'
        hint = f"add zone {upstream.name} 64k;"
        raise UsageError(f"{text} in {block.where} to be in shared memory", hint)


def _implicit(route: Route, rules: NextUpstream, file: str) -> Upstream:
    """The implicit group of one server for `proxy_pass http://host:port`."""
    line = Directive("server", (route.upstream,), route.where)
    server = _server(line, methods.DEFAULT)
    return Upstream((server,), zone=False, next_upstream=rules, name=route.upstream, file=file)


def _server(line: Directive, method: Method) -> Server:
    """One `server` line, checked by the rules of the method before it."""
    _check_argument_count(line, 1)
    fields: dict[str, Any] = {}
    service = None
    for text in line.args[1:]:
        name, equals, value = text.partition("=")
        if text == "backup" and not method.backup:
            hint = f"put {method.shape[0]} after the server lines, or drop backup"
            raise _refusal('balancing method does not support parameter "backup"', line, hint)
        if text in FLAGS:
            fields[text] = True
        elif equals and name in NUMBERS:
            fields[name] = _number(value, NUMBERS[name], text, line)
        elif equals and name == "fail_timeout":
            fields[name] = _whole_seconds(value, text, line)
        elif equals and name == "route":
            fields[name] = _route(value, line)
        elif equals and name == "service":
            service = value
        else:
            allowed = f"nginx allows {', '.join([*NUMBERS, *TEXTS, *sorted(FLAGS)])}"
            hint = hint_on(name) if name in COMMERCIAL else allowed
            hint = 'end the server before it with ";"' if text == "server" else hint
            raise _refusal(f'invalid parameter "{text}"', line, hint)
    server = Server(line.args[0], **fields)
    _check_service(server, service, line)
    if (reason := _address_fault(server.name)) is not None:
        is_url = server.name.startswith(("http://", "https://"))
        hint = "leave the scheme out: it stands in proxy_pass" if is_url else ""
        raise _refusal(f'{reason} in upstream "{server.name}"', line, hint)
    return server


def _number(value: str, least: int, text: str, line: Directive) -> int:
    number = _integer(value)
    if number is None or number < least:
        hint = f"a whole number from {least}"
        raise _refusal(f'invalid parameter "{text}"', line, hint)
    return number


def _whole_seconds(value: str, text: str, line: Directive) -> int:
    time = seconds(value, milliseconds=False)
    if time is None:
        raise _refusal(f'invalid parameter "{text}"', line, "whole seconds: 10, 30s, 1m30s")
    return int(time)


def _route(value: str, line: Directive) -> str:
    if not value:
        raise _refusal("route is empty", line)
    if len(value.encode()) > MAX_ROUTE:
        raise _refusal(f"route is longer than {MAX_ROUTE}", line)
    return value


def _check_service(server: Server, service: str | None, line: Directive) -> None:
    """`service=` asks the resolver for SRV records, so it needs a bare name and `resolve`."""
    if service is None:
        return
    if not service:
        raise _refusal("service is empty", line)
    if not server.resolve:
        raise _refusal(
            f'service upstream "{server.name}" requires "resolve" parameter', line, "add resolve"
        )
    if ":" in server.name:
        raise _refusal(f'service upstream "{server.name}" may not have port', line)


def _address_fault(text: str) -> str | None:
    """Why nginx's ngx_parse_url would refuse an address; None if it accepts it."""
    if text.lower().startswith("unix:"):
        return _unix_fault(text[len("unix:") :])
    if text.startswith("["):
        return _ipv6_fault(text)
    if "/" in text or "?" in text:
        return "invalid host"
    host, colon, port = text.partition(":")
    if colon and not _is_port(port):
        return "invalid port"
    return None if host else "no host"


def _unix_fault(path: str) -> str | None:
    if not path:
        return "no path in the unix domain socket"
    if len(path.encode()) >= MAX_UNIX_PATH:
        return "too long path in the unix domain socket"
    return None


def _ipv6_fault(text: str) -> str | None:
    host, bracket, after = text[1:].partition("]")
    if not bracket or (after and not after.startswith(":")):
        return "invalid host"
    if after and not _is_port(after[1:]):
        return "invalid port"
    return None if _is_literal(f"[{host}]") else "invalid IPv6 address"


def _is_port(text: str) -> bool:
    number = _integer(text)
    return number is not None and 1 <= number <= 65535


def _is_literal(address: str) -> bool:
    """Whether an address needs no resolver: an IP address or a unix socket."""
    if address.lower().startswith("unix:"):
        return True
    if address.startswith("["):
        family, host = socket.AF_INET6, address[1:].partition("]")[0]
    else:
        family, host = socket.AF_INET, address.partition(":")[0]
    try:
        socket.inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


def _plain(line: Directive) -> _Balancing:
    _check_argument_count(line, 0, 0)
    return _Balancing(methods.of_shape(line.name))


def _hash(line: Directive) -> _Balancing:
    _check_argument_count(line, 1, 2)
    key, *parameters = line.args
    if parameters and parameters != ["consistent"]:
        raise _refusal(
            f'invalid parameter "{parameters[0]}"', line, "the second word is consistent"
        )
    return _Balancing(methods.of_shape(line.name, *parameters), key=key)


def _random(line: Directive) -> _Balancing:
    _check_argument_count(line, 0, 2)
    if line.args and line.args[0] != "two":
        raise _refusal(f'invalid parameter "{line.args[0]}"', line, "random two least_conn;")
    if len(line.args) == 2 and line.args[1] != "least_conn":
        raise _refusal(f'invalid parameter "{line.args[1]}"', line, "random two least_conn;")
    # `random two` alone means `random two least_conn`
    return _Balancing(methods.of_shape(line.name, *(("two", "least_conn") if line.args else ())))


def _least_time(line: Directive) -> _Balancing:
    _check_argument_count(line, 1, 2)
    measure, *parameters = line.args
    if measure not in MEASURES:
        raise _refusal(f'invalid value "{measure}"', line, "header or last_byte")
    if parameters and parameters != ["inflight"]:
        raise _refusal(f'invalid parameter "{parameters[0]}"', line, "the second word is inflight")
    return _Balancing(methods.of_shape(line.name), measure=" ".join(line.args))


# the balancing directives of nginx: those with arguments have a reader of their own
BALANCERS: dict[str, Callable[[Directive], _Balancing]] = {
    **{record.shape[0]: _plain for record in methods.METHODS.values() if len(record.shape) == 1},
    "hash": _hash,
    "random": _random,
    "least_time": _least_time,
}


def _sticky(line: Directive) -> Sticky:
    """`sticky cookie NAME …`, `sticky route $variable …` or `sticky learn …`."""
    kind, *words = line.args or ("",)
    if kind not in STICKY or not words:
        hint = "sticky cookie NAME, sticky route $variable, or sticky learn …"
        raise _refusal('invalid number of arguments in "sticky" directive', line, hint)
    return STICKY[kind](words, line)


def _sticky_cookie(words: list[str], line: Directive) -> Sticky:
    for text in words[1:]:
        name, equals, _ = text.partition("=")
        if text not in COOKIE_FLAGS and not (equals and name in COOKIE_VALUES):
            raise _refusal(f'unknown parameter "{text}"', line)
    return Sticky("cookie", (f"$cookie_{words[0]}",))


def _sticky_route(words: list[str], line: Directive) -> Sticky:
    return Sticky("route", tuple(_variable(word, line) for word in words))


def _sticky_learn(words: list[str], line: Directive) -> Sticky:
    values: dict[str, list[str]] = {"create": [], "lookup": [], "zone": [], "timeout": []}
    header = False
    for text in words:
        name, equals, value = text.partition("=")
        if text == "header":
            header = True
        elif equals and name in values:
            values[name].append(value)
        else:
            raise _refusal(f'unknown parameter "{text}"', line, hint_on(text))
    for name in ("create", "lookup", "zone"):
        if not values[name]:
            raise _refusal(f'"sticky" directive "{name}" parameter is not specified', line)
    return Sticky(
        "learn",
        tuple(_variable(word, line) for word in values["lookup"]),
        tuple(_variable(word, line) for word in values["create"]),
        header,
    )


STICKY = {"cookie": _sticky_cookie, "route": _sticky_route, "learn": _sticky_learn}


def _variable(word: str, line: Directive) -> str:
    if not word.startswith("$") or len(word) == 1:
        raise _refusal(f'invalid variable name "{word}"', line, "begin it with $")
    return word


def _zone(line: Directive) -> bool:
    """`zone NAME [SIZE]`: nginx requires at least eight pages."""
    _check_argument_count(line, 1, 2)
    name, *sizes = line.args
    if not name:
        raise _refusal(f'invalid zone name "{name}"', line)
    if not sizes:
        return True
    space = size(sizes[0])
    if space is None:
        raise _refusal(f'invalid zone size "{sizes[0]}"', line, "64k")
    if space < MIN_ZONE:
        raise _refusal(f'zone "{name}" is too small', line, "32k or more")
    return True


def next_upstream(scopes: tuple[Directive, ...]) -> NextUpstream:
    """The retry rules in effect in the innermost of these blocks."""
    conditions = _conditions(effective(scopes, "proxy_next_upstream"))
    tries = effective(scopes, "proxy_next_upstream_tries")
    timeout = effective(scopes, "proxy_next_upstream_timeout")
    return NextUpstream(
        NextUpstream().conditions if conditions is None else conditions,
        _only(tries, _integer, "invalid number") or 0,
        _only(timeout, seconds, "invalid value") or 0.0,
    )


def _conditions(lines: tuple[Directive, ...]) -> frozenset[str] | None:
    """The union of the lines of one block, as in nginx; `off` in any line disables all."""
    if not lines:
        return None
    conditions: set[str] = set()
    for line in lines:
        _check_argument_count(line, 1)
        for word in line.args:
            if word.lower() not in CONDITIONS:
                raise _refusal(f'invalid value "{word}"', line, ", ".join(sorted(CONDITIONS)))
            conditions.add(word.lower())
    return frozenset() if "off" in conditions else frozenset(conditions)


def _only(
    lines: tuple[Directive, ...], reader: Callable[[str], Number | None], fault: str
) -> Number | None:
    """The value of a directive that is allowed once in a block."""
    if not lines:
        return None
    if len(lines) > 1:
        raise _refusal(f'"{lines[1].name}" directive is duplicate', lines[1])
    _check_argument_count(lines[0], 1, 1)
    value = reader(lines[0].args[0])
    if value is None:
        raise _refusal(f'"{lines[0].name}" directive {fault}', lines[0])
    return value


def _integer(text: str) -> int | None:
    """The number, as nginx's ngx_atoi reads it: decimal digits within 63 bits."""
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(INT_MAX)):
        return None
    return int(text) if int(text) <= INT_MAX else None


def _check_argument_count(line: Directive, least: int, most: int | None = None) -> None:
    if len(line.args) < least or (most is not None and len(line.args) > most):
        raise _refusal(f'invalid number of arguments in "{line.name}" directive', line)


def _refusal(fault: str, line: Directive, hint: str = "") -> UsageError:
    return UsageError(f"{fault} in {line.where}", hint)
