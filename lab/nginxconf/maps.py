"""Variables that a config derives from others: map, split_clients, geo, regex captures."""

import ipaddress
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol

from ..errors import UndecidedError, UsageError
from .request import Evaluator, Request, raw
from .tree import Directive

# IP version, first and last address as numbers
Range = tuple[int, int, int]

POSIX = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "xdigit": "0-9A-Fa-f",
    "space": r"\s",
    "word": r"\w",
    "punct": r"!-/:-@\[-`{-~",
}
# PCRE's syntax where it differs from Python's
PCRE = re.compile(
    r"""\\k[<{'](?P<back>\w+)[>}'] | \\(?P<escape>.) | \(\?(?:P?<|')(?P<name>\w+)[>']
    | \[:(?P<posix>\w+):\]""",
    re.VERBOSE | re.DOTALL,
)
ESCAPES = {"z": r"\Z", "Z": r"(?=\n?\Z)", "h": r"[ \t]", "R": r"(?:\r\n|[\n\v\f\r])"}
HUNDRED_PERCENT = 10_000  # nginx counts shares in hundredths of a percent
MURMUR = 0x5BD1E995


class Scope(Protocol):
    """The evaluation of texts and variables at one point of a config."""

    def text(self, text: str) -> Evaluator:
        """The function that evaluates a text with variables."""

    def variable(self, name: str) -> Evaluator:
        """The function that evaluates one variable."""

    def with_variables(self, names: Mapping[str, Evaluator]) -> "Scope":
        """The same scope with more names, which hide earlier definitions."""


def constant(value: bytes) -> Evaluator:
    """The same value for every request."""
    return lambda _request: value


def pattern(text: str, *, ignore_case: bool, where: str) -> re.Pattern[bytes]:
    """Compile an nginx regex (PCRE) with Python's `re`; UsageError if `re` does not support it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flags = re.IGNORECASE if ignore_case else re.NOFLAG
            return re.compile(raw(PCRE.sub(_translated, text)), flags)
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        raise UsageError(f'cannot evaluate the regex "{text}" in {where}: {error}') from None


def _translated(match: re.Match[str]) -> str:
    if match["back"]:
        return f"(?P={match['back']})"
    if match["name"]:
        return f"(?P<{match['name']}>"
    if match["posix"]:
        return POSIX.get(match["posix"], match[0])
    return ESCAPES.get(match["escape"], match[0])


def captures(regex: re.Pattern[bytes], subject: Evaluator) -> dict[str, Evaluator]:
    """The values of $1 … $9 and of the named captures after `regex` matched `subject`."""

    def capture(group: str | int) -> Evaluator:
        def find(request: Request) -> bytes:
            match = regex.search(subject(request))
            return (match[group] or b"") if match else b""

        return find

    numbered = {str(number): capture(number) for number in range(1, min(regex.groups, 9) + 1)}
    return numbered | {name.lower(): capture(name) for name in regex.groupindex}


def map_(block: Directive, scope: Scope) -> Evaluator:
    """`map`: exact texts without case, then wildcards if `hostnames`, regexes in order, default."""
    _check_argument_count(block, 2, 2)
    source = scope.text(block.args[0])
    hostnames = any(line.name == "hostnames" and not line.args for line in block.block or ())
    default = constant(b"")
    texts: dict[bytes, Evaluator] = {}
    regexes: list[tuple[re.Pattern[bytes], Evaluator]] = []
    for line in _map_entries(block):
        if line.name == "default":
            default = result_of(line, scope)
        elif line.name.startswith("~") and line.name != "~":
            regexes.append(_map_regex(line, source, scope))
        else:
            _add(texts, line, hostnames=hostnames, result=result_of(line, scope))
    wildcards = hostnames and any(b"*" in text for text in texts)

    def find(request: Request) -> bytes:
        value = source(request)
        if hostnames:
            value = value.removesuffix(b".")
        low = value.lower()
        if (chosen := texts.get(low)) is not None:
            return chosen(request)
        if wildcards and (chosen := _wildcard(texts, low)) is not None:
            return chosen(request)
        # nginx tries no regex on an empty value
        for regex, result in regexes if value else ():
            if regex.search(value):
                return result(request)
        return default(request)

    return find


def result_of(line: Directive, scope: Scope) -> Evaluator:
    """The function that evaluates a map's line; if the lab cannot, it raises when it is called."""
    try:
        return scope.text(line.args[0])
    except UndecidedError as error:
        undecided = error

    def fail(_request: Request) -> bytes:
        raise undecided

    return fail


def _map_entries(block: Directive) -> Iterator[Directive]:
    """The lines that give a value; nginx requires two words on each."""
    for line in block.block or ():
        if line.name in ("hostnames", "volatile") and not line.args:
            continue
        if len(line.args) != 1 or line.block is not None:
            raise UsageError(f"invalid number of the map parameters in {line.where}")
        yield line


def _map_regex(
    line: Directive, source: Evaluator, scope: Scope
) -> tuple[re.Pattern[bytes], Evaluator]:
    ignore_case = line.name.startswith("~*")
    text = line.name[2:] if ignore_case else line.name[1:]
    regex = pattern(text, ignore_case=ignore_case, where=line.where)
    return regex, scope.with_variables(captures(regex, source)).text(line.args[0])


def _add(
    texts: dict[bytes, Evaluator], line: Directive, *, hostnames: bool, result: Evaluator
) -> None:
    """Add an exact text or, under `hostnames`, a wildcard; ".example.com" adds both."""
    text = raw(line.name.removeprefix("\\")).lower()
    if text in texts:
        raise UsageError(f'conflicting parameter "{line.name}" in {line.where}')
    if hostnames and text.startswith(b"."):
        texts[text[1:]] = result
        texts[b"*" + text] = result
    else:
        texts[text] = result


def _wildcard(texts: Mapping[bytes, Evaluator], name: bytes) -> Evaluator | None:
    """The longest "*.example.com" that fits a host name, else the longest "mail.*"."""
    labels = name.split(b".")
    for start in range(1, len(labels)):
        if (chosen := texts.get(b".".join([b"*", *labels[start:]]))) is not None:
            return chosen
    for end in range(len(labels) - 1, 0, -1):
        if (chosen := texts.get(b".".join([*labels[:end], b"*"]))) is not None:
            return chosen
    return None


def split_clients(block: Directive, scope: Scope) -> Evaluator:
    """`split_clients`: the text's MurmurHash2 falls into one of the shares of 32 bits."""
    _check_argument_count(block, 2, 2)
    source = scope.text(block.args[0])
    shares = list(_shares(block))

    def find(request: Request) -> bytes:
        number = murmur(source(request))
        return next((value for end, value in shares if end is None or number < end), b"")

    return find


def _shares(block: Directive) -> Iterator[tuple[int | None, bytes]]:
    """The end of each share (None: all the rest) and its value."""
    total = end = 0
    for line in block.block or ():
        match = re.fullmatch(r"(\d{0,9})(?:\.(\d{0,2}))?%", line.name, re.ASCII)
        if (match is None and line.name != "*") or len(line.args) != 1:
            raise UsageError(f'invalid percent value "{line.name}" in {line.where}')
        value = raw(line.args[0])
        if match is None:
            yield None, value
            continue
        part = int(match[1] or "0") * 100 + int((match[2] or "").ljust(2, "0"))
        total += part
        if total > HUNDRED_PERCENT or part == 0:
            raise UsageError(f"percent total is greater than 100% or zero in {line.where}")
        end += part * 0xFFFFFFFF // HUNDRED_PERCENT
        yield end, value


def murmur(data: bytes) -> int:
    """MurmurHash2 of 32 bits with seed 0, as nginx's ngx_murmur_hash2."""
    number = len(data)
    whole = len(data) & ~3
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        word = word * MURMUR & 0xFFFFFFFF
        word ^= word >> 24
        number = (number * MURMUR & 0xFFFFFFFF) ^ (word * MURMUR & 0xFFFFFFFF)
    if rest := data[whole:]:
        number = (number ^ int.from_bytes(rest, "little")) * MURMUR & 0xFFFFFFFF
    number = (number ^ number >> 13) * MURMUR & 0xFFFFFFFF
    return number ^ number >> 15


def geo(block: Directive, scope: Scope) -> Evaluator:
    """`geo`: the value of the narrowest network that holds the client's address."""
    _check_argument_count(block, 1, 2)
    name = block.args[0].removeprefix("$").lower() if len(block.args) == 2 else "remote_addr"
    source = scope.variable(name)
    default, ranges = _ranges(block)

    def find(request: Request) -> bytes:
        address = _address(source(request).decode("ascii", "replace"))
        if address is None:
            return default
        version, number = address.version, int(address)
        return next(
            (v for (ip, first, last), v in ranges if ip == version and first <= number <= last),
            default,
        )

    return find


def _ranges(block: Directive) -> tuple[bytes, list[tuple[Range, bytes]]]:
    """The default and the ranges of a `geo` block, the narrowest first."""
    default = b""
    values: dict[Range, bytes] = {}
    for line in block.block or ():
        if line.name == "ranges" and not line.args:
            continue
        if len(line.args) != 1:
            raise UsageError(f"invalid number of the geo parameters in {line.where}")
        if line.name in ("proxy", "proxy_recursive"):
            raise UsageError(f'the lab does not follow "{line.name}" of geo in {line.where}')
        if line.name == "default":
            default = raw(line.args[0])
        elif line.name == "delete":
            values.pop(_range(line.args[0], line), None)
        else:
            values[_range(line.name, line)] = raw(line.args[0])
    return default, sorted(values.items(), key=lambda entry: entry[0][2] - entry[0][1])


def _range(text: str, line: Directive) -> Range:
    """The ends of "10.0.0.0/8", "10.0.0.1" or "10.0.0.1-10.0.0.9"."""
    try:
        if "-" in text:
            first, last = (ipaddress.ip_address(end.strip()) for end in text.split("-", 1))
            return first.version, int(first), int(last)
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UsageError(f'invalid network "{text}" in {line.where}') from None
    return network.version, int(network[0]), int(network[-1])


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address; an IPv4 one that is written as IPv6 counts as IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _check_argument_count(block: Directive, least: int, most: int) -> None:
    if not least <= len(block.args) <= most:
        fault = f'invalid number of arguments in "{block.name}" directive'
        raise UsageError(f"{fault} in {block.where}")


BLOCKS: Mapping[str, Callable[[Directive, Scope], Evaluator]] = MappingProxyType(
    {"map": map_, "split_clients": split_clients, "geo": geo}
)
