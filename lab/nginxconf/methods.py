"""The balancing methods, as the files under nginx/methods/ tell them, and what `lab use` writes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..paths import ROOT

FOLDER = ROOT / "nginx/methods"


@dataclass(frozen=True, slots=True)
class Method:
    """One file of nginx/methods/: its name, its comment, its directives, the nginx it needs.

    `http` are the directives that stand beside the upstream, `upstream` those inside it.
    """

    name: str
    about: tuple[str, ...]
    upstream: str
    http: str = ""
    needs: tuple[int, ...] = (0,)

    @property
    def directive(self) -> str:
        """What makes nginx use it; empty for its default."""
        return self.upstream.strip()

    def as_dict(self) -> dict[str, str | None]:
        """The method as plain values, for JSON."""
        return {
            "name": self.name,
            "directive": self.directive,
            "about": " ".join(self.about),
            "needs_nginx": ".".join(map(str, self.needs)) if any(self.needs) else None,
        }

    @property
    def key(self) -> str:
        """The text of the hash key; empty where nothing is hashed."""
        found = re.match(r"hash\s+(\S+?)\s*(?:consistent\s*)?;", self.directive)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A method with everything that `lab use` takes.

    `parameters` are server parameters by backend name, "" for every server; `next_upstream` is
    proxy_next_upstream's value; `zone` off and `http` "1.0" are the article's own shape.
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


def methods(folder: Path = FOLDER) -> dict[str, Method]:
    """Every method by name, in the order in which people meet them."""
    found = {
        file.stem: parse(file.stem, file.read_text()) for file in sorted(folder.glob("*.conf"))
    }
    first = ["round_robin", "least_conn", "ip_hash", "hash", "hash_consistent"]
    order = [name for name in first if name in found]
    return {name: found[name] for name in [*order, *sorted(set(found) - set(order))]}


def parse(name: str, text: str) -> Method:
    """Read one method file: comment lines, blocks for http, one directive for the upstream."""
    lines = text.splitlines()
    about = tuple(line.lstrip("# ") for line in lines if line.startswith("#"))
    body = "\n".join(line for line in lines if not line.startswith("#")).strip()
    blocks = re.findall(r"^map .*?^\}\n?", body, re.MULTILINE | re.DOTALL)
    for block in blocks:
        body = body.replace(block, "")
    version = re.search(r"nginx (\d+\.\d+\.\d+)\+", " ".join(about))
    needs = tuple(int(part) for part in version[1].split(".")) if version else (0,)
    return Method(name, about, body.strip(), "\n".join(blocks).strip(), needs)


def method(name: str) -> Method:
    """The method of that name; UsageError naming all when there is none."""
    known = methods()
    if name not in known:
        raise UsageError(f'no method "{name}"', f"one of {', '.join(known)}")
    return known[name]


def render(choice: Choice) -> str:
    """The whole of active/upstream.conf for a choice."""
    chosen = method(choice.method)
    directive = _directive(chosen, choice)
    inside = [f"{directive}"] if directive else []
    lines = [
        f"# {choice.method}, written by `lab use`; the next one writes it anew.",
        *(f"# {line}" for line in chosen.about),
        "upstream llm {",
        *(["    zone llm 256k;    # one zone: workers share their turns"] if choice.zone else []),
        *(f"    {line}" for line in inside),
        *(f"    {line}" for line in _servers(choice)),
        *(["    keepalive 32;"] if choice.keepalive else []),
        "}",
        "",
        *([chosen.http, ""] if chosen.http else []),
        f"proxy_http_version {'1.1' if choice.keepalive else '1.0'};",
        *([f"proxy_next_upstream {choice.next_upstream};"] if choice.next_upstream else []),
        "# for the log: the key that nginx hashed",
        f'map "" $hash_key {{ default {_key(directive) or _quoted("")}; }}',
    ]
    return "\n".join(lines) + "\n"


def _directive(chosen: Method, choice: Choice) -> str:
    """The method's directive with the user's key or measure in it."""
    directive = chosen.directive
    if choice.key:
        if chosen.name not in ("hash", "hash_consistent"):
            raise UsageError(f"{chosen.name} takes no key", "lab use hash --key '$arg_user'")
        directive = directive.replace(chosen.key, _quoted(choice.key), 1)
    if choice.measure:
        if chosen.name != "least_time":
            raise UsageError(
                f"{chosen.name} takes no measure", "lab use least_time --measure header"
            )
        directive = directive.replace("header", choice.measure, 1)
    return directive


def _key(directive: str) -> str:
    """The hash key of a directive, as it stands there."""
    found = re.match(r'hash\s+("(?:\\.|[^"\\])*"|\S+?)\s*(?:consistent\s*)?;', directive)
    return found[1] if found else ""


def _quoted(text: str) -> str:
    """A word of an nginx configuration; quoted where it has to be."""
    if "\n" in text or "\r" in text:
        raise UsageError(f"a line break in {text!r}", "one line")
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
    own = " ".join(parameters[who] for who in ("", name) if who in parameters)
    words = [f"server {name}:8000", *([f"weight={weight}"] if weight != 1 else []), *own.split()]
    if any(set(word) & set(";{}\"'#\\") for word in words):
        raise UsageError(f'"{own}" is not a list of server parameters', "max_fails=3 backup")
    return " ".join(words) + ";"


def parse_weights(text: str) -> tuple[int, ...]:
    """Weights as a person writes them: "3,2,1"."""
    words: Sequence[str] = [word.strip() for word in text.split(",")] if text else []
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise UsageError(f'"{text}" is not a list of weights', "--weights 3,2,1")
    return tuple(int(word) for word in words)


def weighted(servers: Sequence[str], weights: Sequence[int]) -> list[str]:
    """Server texts with a weight each; none where there are no weights."""
    if weights and len(weights) != len(servers):
        raise UsageError(
            f"{len(weights)} weights for {len(servers)} servers",
            f"--weights with {len(servers)} numbers",
        )
    return [f"{text} weight={n}" for text, n in zip(servers, weights, strict=False)] or [*servers]


def parse_parameters(texts: Sequence[str]) -> dict[str, str]:
    """Server parameters: "max_fails=3" for every server, "backend-2: down" for one."""
    found: dict[str, str] = {}
    for text in texts:
        who, colon, what = text.partition(":")
        named = bool(colon) and re.fullmatch(r"\s*[\w.-]+\s*", who) and "=" not in who
        name, words = (who.strip(), what) if named else ("", text)
        found[name] = f"{found.get(name, '')} {words.strip()}".strip()
    return found
