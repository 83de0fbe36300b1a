"""The balancing methods, one record each, and the config that `lab use` writes.

All facts about a method are in its record. To add a method, add a record.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache

from ..errors import UsageError
from ..paths import ROOT
from .prompt import Prefix, directives

FOLDER = ROOT / "nginx/methods"


class Decides(StrEnum):
    """What a method looks at when it picks a server."""

    TURNS = "turns"  # weighted turns, independent of the request
    KEY = "key"  # a text of the request: its address, URI, prompt, cookie
    DRAW = "draw"  # a random number
    LOAD = "load"  # the requests in flight on each server


class Varied(StrEnum):
    """What must differ between requests to test a method."""

    NOTHING = "nothing"  # any traffic tests it, also one ab run
    ADDRESSES = "addresses"
    KEYS = "keys"
    PROMPTS = "prompts"
    SESSIONS = "sessions"
    DURATIONS = "durations"  # of answers, many in flight at a time


@dataclass(frozen=True, slots=True)
class FileText:
    """The content of a file of nginx/methods/: its comment, directives and required nginx.

    `http` are the directives outside the upstream block, `upstream` those inside it.
    """

    about: tuple[str, ...]
    upstream: str
    http: str = ""
    needs: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Advised:
    """A method for `lab advise`: `rank` 1 is the simplest to run, `costs` the drawback."""

    rank: int
    costs: str


@dataclass(frozen=True, slots=True)
class Method:
    """All facts about one method except its directive and comment, which are in its own file.

    `decides` is what it picks by, the first before the others (ties, first visits). `varied` is
    what traffic must vary to test it. `stateless` says that all workers pick alike without a
    zone. `backup` says whether nginx accepts `backup` on a server line below the directive.
    `in_order` says whether the order of the server lines decides. `takes` is the option that
    changes its text: key, measure or prefix. `algorithm` is the method that nginx runs where this
    one is a use of another (a hash of the prompt). `soaked` says whether `lab soak`, whose traffic
    is mixed, switches to it. `advised` is for `lab advise`; None where it leaves the method out.
    """

    name: str
    decides: tuple[Decides, ...]
    varied: Varied = Varied.NOTHING
    stateless: bool = False
    backup: bool = True
    in_order: bool = True
    takes: str = ""
    algorithm: str = ""
    soaked: bool = False
    advised: Advised | None = None

    @property
    def runs(self) -> str:
        """The method that nginx runs: this one, or the one that it is a use of."""
        return self.algorithm or self.name

    @property
    def by_turns(self) -> bool:
        """Whether only the turns of round robin decide."""
        return self.decides == (Decides.TURNS,)

    @property
    def by_request(self) -> bool:
        """Whether only the request decides: its address or its key."""
        return self.decides == (Decides.KEY,)

    @property
    def by_draw(self) -> bool:
        """Whether random draws decide, alone or before the load."""
        return Decides.DRAW in self.decides

    @property
    def by_draw_alone(self) -> bool:
        """Whether only random draws decide."""
        return self.decides == (Decides.DRAW,)

    @property
    def by_load(self) -> bool:
        """Whether the requests in flight decide, alone or among the servers drawn."""
        return Decides.LOAD in self.decides

    @property
    def by_time(self) -> bool:
        """Whether each server's average response time decides."""
        return self.takes == "measure"

    @property
    def about(self) -> tuple[str, ...]:
        """The comment lines of its file: what it does, and when to use it."""
        return _file(self.name).about

    @property
    def directive(self) -> str:
        """The directive that selects it; empty for nginx's default."""
        return _file(self.name).upstream

    @property
    def http(self) -> str:
        """The directives outside the upstream block."""
        return _file(self.name).http

    @property
    def needs(self) -> tuple[int, ...]:
        """The oldest nginx version that has it; (0,) if all have it."""
        return _file(self.name).needs

    @property
    def key(self) -> str:
        """The text of the hash key; empty if nothing is hashed."""
        match = re.match(r"hash\s+(\S+?)\s*(?:consistent\s*)?;", self.directive)
        return match[1] if match else ""

    @property
    def shape(self) -> tuple[str, ...]:
        """The words of the directive without its key or measure, to recognise it in a config."""
        return tuple(word for word in self.words if word != self._option)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the directive; none for nginx's default."""
        return tuple(self.directive.rstrip(";").split())

    def with_option(self, text: str) -> tuple[str, ...]:
        """The words of the directive with another key or measure."""
        return tuple(text if word == self._option else word for word in self.words)

    @property
    def _option(self) -> str:
        """The word of the directive that is its key or measure; empty without one."""
        return self.key or (self.words[1] if self.takes else "")

    def as_dict(self) -> dict[str, str | None]:
        """The method as plain values, for JSON."""
        return {
            "name": self.name,
            "directive": self.directive,
            "about": " ".join(self.about),
            "needs_nginx": ".".join(map(str, self.needs)) if any(self.needs) else None,
        }


# In the order of the documentation; each has a file of its name in nginx/methods/.
METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            "round_robin",
            (Decides.TURNS,),
            soaked=True,
            advised=Advised(1, "ignores load: long responses and slow servers queue up"),
        ),
        Method(
            "least_conn",
            (Decides.LOAD, Decides.TURNS),
            Varied.DURATIONS,
            soaked=True,
            advised=Advised(2, "counts requests, not tokens; ignores prefix caches"),
        ),
        Method(
            "ip_hash",
            (Decides.KEY,),
            Varied.ADDRESSES,
            stateless=True,
            backup=False,
            soaked=True,
            advised=Advised(
                7, "shares depend on client networks; clients behind one NAT get one server"
            ),
        ),
        Method(
            "hash",
            (Decides.KEY,),
            Varied.KEYS,
            stateless=True,
            backup=False,
            takes="key",
            soaked=True,
        ),
        Method(
            "hash_consistent",
            (Decides.KEY,),
            Varied.KEYS,
            stateless=True,
            backup=False,
            in_order=False,
            takes="key",
            soaked=True,
        ),
        Method(
            "least_time",
            (Decides.LOAD, Decides.TURNS),
            Varied.DURATIONS,
            takes="measure",
            advised=Advised(
                4, "sends most requests to the fastest servers; a slow start skews its averages"
            ),
        ),
        Method(
            "prompt_prefix",
            (Decides.KEY,),
            Varied.PROMPTS,
            stateless=True,
            backup=False,
            in_order=False,
            takes="prefix",
            algorithm="hash_consistent",
            advised=Advised(
                6, "uneven: shares follow the prompts; a hot prompt stays on one server"
            ),
        ),
        Method(
            "random",
            (Decides.DRAW,),
            stateless=True,
            backup=False,
            in_order=False,
            soaked=True,
        ),
        Method(
            "random_two",
            (Decides.DRAW, Decides.LOAD),
            Varied.DURATIONS,
            backup=False,
            in_order=False,
            advised=Advised(
                3, "a little less even than least_conn; made for several nginx side by side"
            ),
        ),
        Method(
            "sticky",
            (Decides.KEY, Decides.TURNS),
            Varied.SESSIONS,
            algorithm="round_robin",
            advised=Advised(
                5,
                "clients must keep a cookie; new servers fill slowly, a lost one loses its"
                " sessions",
            ),
        ),
    )
}
DEFAULT = METHODS["round_robin"]  # what nginx does without a directive
STICKY = METHODS["sticky"]  # the one that nginx adds to another method


@dataclass(frozen=True, slots=True)
class Choice:
    """A method with all options of `lab use`.

    `parameters` are server parameters by backend name, "" for every server; `next_upstream` is
    proxy_next_upstream's value. The article's own shape has neither `zone` nor `keepalive`; without
    `keepalive`, nginx speaks HTTP/1.0 to the backends.
    """

    method: str
    backends: tuple[str, ...]
    weights: tuple[int, ...] = ()
    key: str = ""
    measure: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    next_upstream: str = ""
    zone: bool = True
    keepalive: bool = True
    prefix: Prefix = field(default_factory=Prefix)


def methods() -> Mapping[str, Method]:
    """Every method by name, in the order of the documentation."""
    return METHODS


def check_key(key: str, names: Sequence[str]) -> None:
    """Raise UsageError for a key that none of these methods takes."""
    if key and all(method(name).takes != "key" for name in names):
        takers = " or ".join(name for name, record in METHODS.items() if record.takes == "key")
        fault = f"{', '.join(names)} takes no key"
        raise UsageError(fault, f"leave the key out, or choose {takers}")


def method(name: str) -> Method:
    """The method of that name; else a UsageError that names all methods."""
    if name not in METHODS:
        raise UsageError(f'no method "{name}"', f"one of {', '.join(METHODS)}")
    return METHODS[name]


def varying(varied: Varied) -> list[str]:
    """The names of the methods that such traffic tests."""
    return [method.name for method in METHODS.values() if method.varied is varied]


def advised() -> dict[str, Advised]:
    """The methods that `lab advise` compares, by name, the simplest first."""
    weighed = [(name, method.advised) for name, method in METHODS.items() if method.advised]
    return dict(sorted(weighed, key=lambda pair: pair[1].rank))


def of_shape(*words: str) -> Method:
    """The method whose directive has these words, its key or measure left out."""
    return next(
        method for method in METHODS.values() if not method.algorithm and method.shape == words
    )


@cache
def _file(name: str) -> FileText:
    return parse((FOLDER / f"{name}.conf").read_text())


def parse(text: str) -> FileText:
    """Read one method file: comment lines, blocks for http, one directive for the upstream."""
    lines = text.splitlines()
    about = tuple(line.lstrip("# ") for line in lines if line.startswith("#"))
    body = "\n".join(line for line in lines if not line.startswith("#")).strip()
    blocks = re.findall(r"^map .*?^\}\n?", body, re.MULTILINE | re.DOTALL)
    for block in blocks:
        body = body.replace(block, "")
    version = re.search(r"nginx (\d+\.\d+\.\d+)\+", " ".join(about))
    needs = tuple(int(part) for part in version[1].split(".")) if version else (0,)
    return FileText(about, body.strip(), "\n".join(blocks).strip(), needs)


def render(choice: Choice) -> str:
    """The text of active/upstream.conf for a choice."""
    chosen = method(choice.method)
    directive = _directive(chosen, choice)
    http = http_of(chosen, choice.prefix)
    inside = [directive] if directive else []
    lines = [
        f"# {choice.method}, written by `lab use`; the next `lab use` overwrites it.",
        *(f"# {line}" for line in chosen.about),
        "upstream llm {",
        *(["    zone llm 256k;    # one zone: workers share their turns"] if choice.zone else []),
        *(f"    {line}" for line in inside),
        *(f"    {line}" for line in _servers(choice)),
        *(
            ["    keepalive 512;    # per worker: one may serve nearly all clients"]
            if choice.keepalive
            else []
        ),
        "}",
        "",
        *([http, ""] if http else []),
        f"proxy_http_version {'1.1' if choice.keepalive else '1.0'};",
        *([f"proxy_next_upstream {choice.next_upstream};"] if choice.next_upstream else []),
        "# for the log: the key that nginx hashed",
        f'map "" $hash_key {{ default {_key(directive) or _quoted("")}; }}',
    ]
    return "\n".join(lines) + "\n"


def http_of(chosen: Method, prefix: Prefix) -> str:
    """The directives outside the upstream block, with the user's choice of prompt prefix."""
    if chosen.takes == "prefix":
        return directives(prefix, chosen.http)
    if prefix != Prefix():
        raise UsageError(
            f"{chosen.name} hashes no prompt", "lab use prompt_prefix --characters 500"
        )
    return chosen.http


def _directive(chosen: Method, choice: Choice) -> str:
    """The method's directive with the user's key or measure in it."""
    directive = chosen.directive
    check_key(choice.key, [chosen.name])
    if choice.key:
        directive = directive.replace(chosen.key, _quoted(choice.key), 1)
    if choice.measure:
        if chosen.takes != "measure":
            raise UsageError(
                f"{chosen.name} takes no measure", "lab use least_time --measure header"
            )
        directive = f"{' '.join(chosen.with_option(choice.measure))};"
    return directive


def _key(directive: str) -> str:
    """The hash key of a directive, as it is written there."""
    match = re.match(r'hash\s+("(?:\\.|[^"\\])*"|\S+?)\s*(?:consistent\s*)?;', directive)
    return match[1] if match else ""


def _quoted(text: str) -> str:
    """A word of an nginx configuration; quoted where it has to be."""
    if "\n" in text or "\r" in text:
        raise UsageError(f"the key {text!r} contains a line break", "write the key on one line")
    if re.fullmatch(r"[\w$./:@-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _servers(choice: Choice) -> list[str]:
    """The `server` lines, each with its weight and parameters."""
    weights = choice.weights or (1,) * len(choice.backends)
    if len(weights) != len(choice.backends):
        raise UsageError(
            f"{len(weights)} weights for {len(choice.backends)} backends",
            f"--weights with {len(choice.backends)} numbers",
        )
    unknown = set(choice.parameters) - set(choice.backends) - {""}
    if unknown:
        raise UsageError(
            f'no backend "{min(unknown)}" to give parameters to',
            f"one of {', '.join(choice.backends)}",
        )
    return [
        _server(name, weight, choice.parameters)
        for name, weight in zip(choice.backends, weights, strict=True)
    ]


def _server(name: str, weight: int, parameters: Mapping[str, str]) -> str:
    words_given = " ".join(parameters[key] for key in ("", name) if key in parameters)
    words = [
        f"server {name}:8000",
        *([f"weight={weight}"] if weight != 1 else []),
        *words_given.split(),
    ]
    if any(set(word) & set(";{}\"'#\\") for word in words):
        raise UsageError(
            f'"{words_given}" is not a list of server parameters', "max_fails=3 backup"
        )
    return " ".join(words) + ";"


def parse_weights(text: str) -> tuple[int, ...]:
    """Parse weights: "3,2,1"."""
    words: Sequence[str] = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f'"{text}" is not a list of weights', "--weights 3,2,1")
    return tuple(int(word) for word in words)


def weighted(servers: Sequence[str], weights: Sequence[int]) -> list[str]:
    """Server texts with a weight each; unchanged without weights."""
    if weights and len(weights) != len(servers):
        raise UsageError(
            f"{len(weights)} weights for {len(servers)} servers",
            f"--weights with {len(servers)} numbers",
        )
    return [f"{text} weight={n}" for text, n in zip(servers, weights, strict=False)] or [*servers]


def parse_parameters(texts: Sequence[str]) -> dict[str, str]:
    """Parse server parameters: "max_fails=3" for every server, "backend-2: down" for one."""
    by_server: dict[str, str] = {}
    for text in texts:
        first, colon, after = text.partition(":")
        named = bool(colon) and re.fullmatch(r"\s*[\w.-]+\s*", first) and "=" not in first
        name, words = (first.strip(), after) if named else ("", text)
        by_server[name] = f"{by_server.get(name, '')} {words.strip()}".strip()
    return by_server
