"""Which ports and locations of an nginx config pass to which upstream."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from ..errors import UsageError
from .tree import Config, Directive

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)
# how many values of a variable proxy_pass are followed up; real configs name a handful
MAX_TARGETS = 1_000
ANY = "\0"  # stands for any text; no config has this character
CAPTURE = re.compile(r"\(\?P?<(\w+)>")
DEFAULT_PORTS = {"http": 80, "https": 443}
# what nginx's own variables begin with, as far as it decides where a URL's host ends
BUILTIN_TEXTS: Mapping[str, tuple[str, ...]] = {
    "scheme": ("http", "https"),
    **dict.fromkeys(("request_uri", "uri", "document_uri"), ("/",)),
    **dict.fromkeys(("is_args", "args", "query_string"), ("",)),
}


EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - what a config says; the lab binds nothing to it


@dataclass(frozen=True, slots=True)
class Listen:
    """One `listen`: `address` is "*" by default, `port` 0 for a unix socket."""

    address: str
    port: int
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.port else self.address


@dataclass(frozen=True, slots=True)
class Route:
    """One `proxy_pass`: the port and location that lead to it, and its upstream.

    `server_name` is the first name ("" for none), `location` the innermost location's words
    ("/", "= /chat", "~ ^/v1/"). `upstream` is the group's name; it keeps its "$" if a variable
    decides and none of its values in the config names a group. `scopes` are the blocks around the
    `proxy_pass`, http first, for reading inherited directives.
    """

    listen: tuple[Listen, ...]
    server_name: str
    location: str
    upstream: str
    proxy_pass: str
    scopes: tuple[Directive, ...]
    where: str = ""

    @property
    def scheme(self) -> str:
        """The scheme of requests to the proxied server."""
        return self.proxy_pass.partition("://")[0].lower()


def routes(config: Config) -> tuple[Route, ...]:
    """Every route through the config's `http` block to an upstream, in the order of the file."""
    http = config.block("http")
    names = {block.args[0].lower(): block.args[0] for block in http.all("upstream") if block.args}
    values = _assigned(http)
    return tuple(
        route
        for server in http.all("server")
        for scopes, proxy_pass in _proxied((http, server))
        for route in _routes(scopes, proxy_pass, names, values)
    )


def effective(scopes: tuple[Directive, ...], name: str) -> tuple[Directive, ...]:
    """The directives of that name in effect in the innermost scope: nginx inherits all or none."""
    return next((lines for scope in reversed(scopes) if (lines := scope.all(name))), ())


def authority(url: str) -> str:
    """The group that a proxy_pass URL names: "http://llm/v1" gives "llm"; "" if it is no URL."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in DEFAULT_PORTS:
        return ""
    if rest.lower().startswith("unix:"):
        return ":".join(rest.split(":")[:2])
    return re.split(r"[/?]", rest, maxsplit=1)[0]


def _proxied(scopes: tuple[Directive, ...]) -> Iterator[tuple[tuple[Directive, ...], Directive]]:
    """Every `proxy_pass` under the innermost scope, with the blocks around it."""
    for directive in scopes[-1].block or ():
        if directive.name == "proxy_pass" and directive.block is None:
            yield scopes, directive
        elif directive.block is not None and directive.name in ("location", "if", "limit_except"):
            yield from _proxied((*scopes, directive))


def _routes(
    scopes: tuple[Directive, ...],
    proxy_pass: Directive,
    names: Mapping[str, str],
    values: Mapping[str, tuple[str, ...]],
) -> Iterator[Route]:
    """The routes of one `proxy_pass`: several where a variable may name several upstreams."""
    if len(proxy_pass.args) != 1:
        raise UsageError(
            f'invalid number of arguments in "proxy_pass" directive in {proxy_pass.where}'
        )
    url = proxy_pass.args[0]
    known = dict.fromkeys(
        name
        for text in islice(_texts(url, values), MAX_TARGETS)
        for name in _named(authority(text), names)
    )
    if "$" not in url:
        _check(url, names, proxy_pass)
    server = scopes[1]
    locations = [scope for scope in scopes if scope.name == "location"]
    server_names = [name for line in server.all("server_name") for name in line.args]
    for upstream in known or (_leading(url),):
        yield Route(
            listen=tuple(listens(server)),
            server_name=server_names[0] if server_names else "",
            location=" ".join(locations[-1].args) if locations else "",
            upstream=upstream,
            proxy_pass=url,
            scopes=scopes,
            where=proxy_pass.where,
        )


def _named(host: str, names: Mapping[str, str]) -> Iterator[str]:
    """The upstreams that a host may name, in which ANY stands for any text."""
    if ANY not in host:
        yield from (names[name] for name in (host.lower(),) if name in names)
        return
    form = re.compile(".*".join(map(re.escape, host.lower().split(ANY))))
    yield from (name for lower, name in names.items() if form.fullmatch(lower))


def _leading(url: str) -> str:
    """The group named by a URL without a block of that name: its text up to a variable path."""
    plain = url
    for name, (text, *others) in BUILTIN_TEXTS.items():
        if not others:
            plain = re.sub(rf"\$(?:\{{{name}\}}|{name}\b)", text, plain)
    return authority(plain) or url


def _check(url: str, names: Mapping[str, str], proxy_pass: Directive) -> None:
    """Refuse a URL without variables that nginx refuses."""
    scheme = url.partition("://")[0].lower()
    if scheme not in DEFAULT_PORTS or "://" not in url:
        raise UsageError(f"invalid URL prefix in {proxy_pass.where}", "begin it with http://")
    host, colon, port = authority(url).rpartition(":")
    if colon and host.lower() in names and port.isascii() and port.isdigit():
        raise UsageError(f'upstream "{host}" may not have port {port} in {proxy_pass.where}')


def listens(server: Directive) -> Iterator[Listen]:
    """What a `server` block listens on; nginx's default is port 80."""
    for line in server.all("listen"):
        if line.args:
            yield from _listen(line.args[0], line.args[1:])
    if not server.all("listen"):
        yield Listen("*", 80)


def _listen(text: str, options: tuple[str, ...]) -> Iterator[Listen]:
    """Read 8080, 127.0.0.1:8080, [::1]:8080, localhost, unix:/path, or ports 8080-8083."""
    if text.lower().startswith("unix:"):
        yield Listen(text, 0, options)
        return
    match = re.fullmatch(r"(?:(.*):)?(\d{1,5})(?:-(\d{1,5}))?", text, re.ASCII)
    if match is None:
        yield Listen(text, 80, options)
        return
    first, last = int(match[2]), int(match[3] or match[2])
    yield from (Listen(match[1] or "*", port, options) for port in range(first, last + 1))


def _assigned(http: Directive) -> dict[str, tuple[str, ...]]:
    """The possible values of each variable that the config sets: set, map, geo, split_clients.

    A regex capture and what a script computes may be any text.
    """
    assigned: dict[str, list[str]] = {}
    for directive in everything(http):
        # a line of a map has its regex in place of a directive's name
        for capture in CAPTURE.findall(" ".join((directive.name, *directive.args))):
            assigned.setdefault(capture.lower(), []).append(ANY)
        if directive.name in ("js_set", "perl_set") and directive.args:
            assigned.setdefault(directive.args[0].lstrip("$").lower(), []).append(ANY)
        elif directive.name == "set" and directive.block is None and len(directive.args) == 2:
            name, text = directive.args
            assigned.setdefault(name.lstrip("$").lower(), []).append(text)
        elif directive.name in ("map", "geo", "split_clients") and directive.args:
            texts = [entry.args[-1] for entry in directive.block or () if entry.args]
            assigned.setdefault(directive.args[-1].lstrip("$").lower(), []).extend(texts)
    return {name: tuple(dict.fromkeys(texts)) for name, texts in assigned.items()}


def everything(block: Directive) -> Iterator[Directive]:
    """Every directive under a block, at any depth, in the order of the file."""
    for directive in block.block or ():
        yield directive
        yield from everything(directive)


def _texts(text: str, values: Mapping[str, tuple[str, ...]], depth: int = 5) -> Iterator[str]:
    """Every value that a text can have, given the values of its variables.

    A variable that the config does not set is ANY: the client chooses most of them.
    """
    match = VARIABLE.search(text)
    if match is None or depth == 0:
        yield text
        return
    name = (match[1] or match[2]).lower()
    for value in values.get(name) or BUILTIN_TEXTS.get(name) or (ANY,):
        replaced = text[: match.start()] + braced(value) + text[match.end() :]
        yield from _texts(replaced, values, depth - 1)


def braced(text: str) -> str:
    """The text with its variables in braces, so that none runs into what is put behind it."""
    return VARIABLE.sub(lambda match: f"${{{match[1] or match[2]}}}", text)
