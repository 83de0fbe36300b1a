"""An nginx config as a tree of directives, includes followed, each with its file and line."""

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import crossplane
from crossplane.errors import NgxParserSyntaxError

from ..errors import UsageError

MAX_DEPTH = 100
MAX_FILES = 10_000
# where images and distributions keep what a repository keeps beside its nginx.conf
INSTALLED_PREFIX = "/etc/nginx/"
ESCAPES = {"\\": "\\", '"': '"', "'": "'", "t": "\t", "r": "\r", "n": "\n"}


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive; `block` holds the directives between its braces, None without braces."""

    name: str
    args: tuple[str, ...]
    file: str = ""
    line: int = 0
    block: "tuple[Directive, ...] | None" = None

    @property
    def where(self) -> str:
        """The place in nginx's manner: `conf/nginx.conf:12`."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def all(self, name: str) -> "tuple[Directive, ...]":
        """Every directive of that name directly inside this block, in order."""
        return tuple(inner for inner in self.block or () if inner.name == name)


@dataclass(frozen=True, slots=True)
class Missing:
    """An `include` that could not be read: the file, why, and the place that asks for it."""

    pattern: str
    reason: str
    where: str


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config: every directive in order, and the includes that could not be read."""

    file: str
    directives: tuple[Directive, ...]
    missing: tuple[Missing, ...] = ()

    def block(self, name: str) -> Directive:
        """The `http` or `stream` block (all of that name joined, as snippets may repeat them).

        A file without an `http` block is taken as a snippet that is included inside one.
        """
        found = [outer for outer in self.directives if outer.name == name]
        if not found and name == "http":
            outside = {"events", "mail", "stream"}
            inner = tuple(each for each in self.directives if each.name not in outside)
            return Directive("http", (), self.file, 0, inner)
        inner = tuple(each for outer in found for each in outer.block or ())
        return Directive(name, (), self.file, found[0].line if found else 0, inner)

    def misplaced(self) -> tuple[Directive, ...]:
        """The `upstream` blocks outside of an `http` block that the same file has."""
        if not any(outer.name == "http" for outer in self.directives):
            return ()
        return tuple(outer for outer in self.directives if outer.name == "upstream")


def read(conf: Path) -> Config:
    """Parse `conf` and all it includes, as nginx does with `-c conf`.

    Relative includes start at the folder of `conf`. Those under /etc/nginx are looked for beside
    `conf` first, where a repository keeps them. An include that names no readable file is listed
    in `missing`; what breaks nginx's grammar is a UsageError with file and line.
    """
    reader = _Reader(conf.parent)
    directives = reader.file(str(conf), ())
    return Config(str(conf), directives, tuple(reader.missing))


class _Reader:
    """Follows includes: the folder they start from, how many were read, which are missing."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.missing: list[Missing] = []
        self.files = 0

    def file(self, path: str, chain: tuple[str, ...]) -> tuple[Directive, ...]:
        """All directives of one file; `chain` is the files whose includes led here."""
        self.files += 1
        if self.files > MAX_FILES:
            raise UsageError(f"more than {MAX_FILES} includes in {chain[0]}")
        if path in chain:
            raise UsageError(f'include of "{path}" inside itself in {chain[-1]}')
        return self._blocks(path, (*chain, path))

    def _blocks(self, path: str, chain: tuple[str, ...]) -> tuple[Directive, ...]:
        """Put the words of a file together: a stack of open blocks, the innermost last."""
        heads: list[Directive] = []
        bodies: list[list[Directive]] = [[]]
        for directive, end in _statements(path):
            if end == "{":
                heads.append(directive)
                bodies.append([])
            elif end == "}":
                block = tuple(bodies.pop())
                bodies[-1].append(replace(heads.pop(), block=block))
            elif directive.name == "include" and len(directive.args) == 1:
                bodies[-1] += self._include(directive, chain)
            else:
                bodies[-1].append(directive)
            if len(heads) > MAX_DEPTH:
                raise UsageError(f"blocks nested deeper than {MAX_DEPTH} in {directive.where}")
        return tuple(bodies[0])

    def _include(self, directive: Directive, chain: tuple[str, ...]) -> list[Directive]:
        """The directives that an `include` reads; none, and a Missing, where no file matches."""
        directives: list[Directive] = []
        for path in self._files(directive.args[0]):
            try:
                with Path(path).open("rb"):
                    pass
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                self.missing.append(Missing(path, reason, directive.where))
                continue
            directives += self.file(path, chain)
        return directives

    def _files(self, pattern: str) -> list[str]:
        """The files that a pattern names: a plain name is itself, whether it exists or not."""
        for choice in (pattern.removeprefix(INSTALLED_PREFIX), pattern):
            if files := self._match(choice):
                return files
        return [] if glob.has_magic(pattern) else [str(self.prefix / pattern)]

    def _match(self, pattern: str) -> list[str]:
        if "\0" in pattern:
            return []
        names = glob.glob(pattern, root_dir=self.prefix)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [str(self.prefix / name) for name in sorted(names)]


def _statements(path: str) -> Iterator[tuple[Directive, str]]:
    """Each run of words with the mark that ends it: ";", "{", or "}" (without words)."""
    words: list[str] = []
    start = line = 1
    for text, line, quoted in _lex(path):
        if quoted or text not in ("{", "}", ";"):
            start = start if words else line
            words.append(_unescape(text))
            continue
        if words and text == "}":
            hint = f'end "{" ".join(words)}" with ";"'
            raise UsageError(f'unexpected "}}" in {path}:{line}', hint)
        if not words and text != "}":
            raise UsageError(f'unexpected "{text}" in {path}:{line}')
        yield Directive("".join(words[:1]), tuple(words[1:]), path, start), text
        words = []
    if words:
        raise UsageError(f'unexpected end of file, expecting ";" or "}}" in {path}:{line}')


def _lex(path: str) -> Iterator[tuple[str, int, bool]]:
    """Tokens (text, line, quoted) by crossplane, without comments; its errors as the lab's own."""
    try:
        for token, line, quoted in crossplane.lex(path):
            if token.startswith("\ufeff"):
                hint = "save the file as UTF-8 without a byte order mark"
                raise UsageError(f"byte order mark in {path}:{line}", hint)
            if quoted or not token.startswith("#"):
                yield token, line, quoted
    except NgxParserSyntaxError as error:
        place = path if error.lineno is None else f"{path}:{error.lineno}"
        raise UsageError(f"{error.strerror} in {place}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f'cannot read "{path}": {reason}', "name an nginx config file") from None


def _unescape(word: str) -> str:
    """Drop the backslashes that nginx's own tokenizer drops; those of regexes stay."""
    if "\\" not in word:
        return word
    return re.sub(r"""\\([\\"'trn])""", lambda escape: ESCAPES[escape[1]], word)
