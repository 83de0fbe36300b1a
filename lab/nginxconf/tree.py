"""An nginx config as a tree of directives, includes followed, each with its file and line."""

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UsageError

MAX_DEPTH = 100
MAX_FILES = 10_000
# where images and distributions have the files that a repository has next to its nginx.conf
INSTALLED_PREFIX = "/etc/nginx/"
# one token of a config, as nginx's ngx_conf_read_token ends it: a quote, "#" or "}" inside a word
# is a part of it, and so is the "{" of "${"
TOKEN = re.compile(
    r"""(?P<skipped> [ \t\r\n]+ | \#[^\n]* )
    | (?P<mark> [{};] )
    | "(?P<double> [^"\\]* (?: \\. [^"\\]* )* )"
    | '(?P<single> [^'\\]* (?: \\. [^'\\]* )* )'
    | (?P<word> (?!["'\#}]) (?: [^ \t\r\n;{\\$] | \\. | \$\{? )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
TEMPLATE = re.compile(r"\{[{%]")  # Jinja, Helm, Go
FILL_IN = "fill in the template first, and give its output to lab verify -"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
QUOTED = ("double", "single")
# what follows the "{" of an unquoted regex, at which nginx begins a block
QUANTIFIER = re.compile(r"\d+(?:,\d*)?\}")
AFTER_QUOTE = ("", " ", "\t", "\r", "\n", ";", "{", ")")
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
        """The place as nginx prints it: `conf/nginx.conf:12`."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def all(self, name: str) -> "tuple[Directive, ...]":
        """Every directive of that name directly inside this block, in order."""
        return tuple(inner for inner in self.block or () if inner.name == name)


@dataclass(frozen=True, slots=True)
class Missing:
    """An `include` that could not be read: the file, the reason, and the place of the include."""

    pattern: str
    reason: str
    where: str


@dataclass(frozen=True, slots=True)
class Config:
    """A config: every directive in order, the includes that could not be read, the files read."""

    file: str
    directives: tuple[Directive, ...]
    missing: tuple[Missing, ...] = ()
    files: tuple[str, ...] = ()

    def block(self, name: str) -> Directive:
        """The `http` or `stream` block (all of that name joined, as snippets may repeat them).

        A file without an `http` block is treated as a snippet included inside one.
        """
        blocks = [outer for outer in self.directives if outer.name == name]
        if not blocks and name == "http":
            outside = {"events", "mail", "stream"}
            inner = tuple(line for line in self.directives if line.name not in outside)
            return Directive("http", (), self.file, 0, inner)
        inner = tuple(line for outer in blocks for line in outer.block or ())
        return Directive(name, (), self.file, blocks[0].line if blocks else 0, inner)

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
    return Config(str(conf), directives, tuple(reader.missing), tuple(reader.files))


class _Reader:
    """Follows includes: their base folder, which files were read, which are missing."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.missing: list[Missing] = []
        self.files: list[str] = []

    def file(self, path: str, chain: tuple[str, ...]) -> tuple[Directive, ...]:
        """All directives of one file; `chain` has the files whose includes led here."""
        self.files.append(path)
        if len(self.files) > MAX_FILES:
            raise UsageError(f"more than {MAX_FILES} includes in {chain[0]}")
        if path in chain:
            hint = "remove this include, or name its files one by one"
            raise UsageError(f'include of "{path}" inside itself in {chain[-1]}', hint)
        return self._blocks(path, (*chain, path))

    def _blocks(self, path: str, chain: tuple[str, ...]) -> tuple[Directive, ...]:
        """Build the tree of a file's directives, with a stack of the open blocks."""
        heads: list[Directive] = []
        bodies: list[list[Directive]] = [[]]
        for directive, end in _statements(_text(path), path):
            if end == "}" and not heads:
                hint = 'remove it, or find the block above that has a "}" too many'
                raise UsageError(f'unexpected "}}" in {directive.where}', hint)
            if heads and end != "}":
                _refuse_quantifier(directive, heads[-1])
            if end == "{":
                _refuse_lua(directive)
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
        if heads:
            unclosed = " ".join((heads[-1].name, *heads[-1].args))
            hint = f'close "{unclosed}" ({heads[-1].where}), or a block inside it, with "}}"'
            raise UsageError(f'unexpected end of file, expecting "}}" in {directive.where}', hint)
        return tuple(bodies[0])

    def _include(self, directive: Directive, chain: tuple[str, ...]) -> list[Directive]:
        """The directives that an `include` reads; none, and a Missing, if no file matches."""
        directives: list[Directive] = []
        for path in self._files(directive.args[0]):
            if Path(path).is_dir():
                hint = f"include {directive.args[0].rstrip('/')}/*.conf;"
                raise UsageError(f'include of the folder "{path}" in {directive.where}', hint)
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
        """The files that match a pattern; a plain name is returned even if it does not exist."""
        for choice in (pattern.removeprefix(INSTALLED_PREFIX), pattern):
            if files := self._match(choice):
                return files
        return [] if glob.has_magic(pattern) else [str(self.prefix / pattern)]

    def _match(self, pattern: str) -> list[str]:
        if "\0" in pattern:
            return []
        names = glob.glob(pattern, root_dir=self.prefix)  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [str(self.prefix / name) for name in sorted(names)]


def _refuse_quantifier(directive: Directive, head: Directive) -> None:
    """Raise UsageError for what follows the brace of an unquoted regex such as ^/v[0-9]{8}$."""
    if QUANTIFIER.match(directive.name):
        regex = f"{head.args[-1] if head.args else head.name}{{{directive.name}"
        hint = f'put the regex in quotes, as nginx ends an unquoted word at "{{": "{regex}"'
        raise UsageError(f'unknown directive "{directive.name}" in {directive.where}', hint)


def _refuse_lua(directive: Directive) -> None:
    """Raise UsageError for a block of Lua, which follows another grammar."""
    if directive.name.endswith("_by_lua_block"):
        hint = "nginx without OpenResty's Lua module refuses it: remove the block in a copy"
        raise UsageError(f'unknown directive "{directive.name}" in {directive.where}', hint)


def words_of(text: str, source: str) -> tuple[str, ...]:
    """The words of one directive, as `log_format x '$msec' '$request';`; `source` is its place."""
    ended = text if text.rstrip().endswith(";") else f"{text};"
    (first, *_) = (directive for directive, _ in _statements(ended, source))
    return (first.name, *first.args)


def _statements(content: str, path: str) -> Iterator[tuple[Directive, str]]:
    """Each statement's words with the token that ends it: ";", "{", or "}" (without words)."""
    words: list[str] = []
    start = line = 1
    for text, line, quoted in _lex(content, path):
        if quoted or text not in ("{", "}", ";"):
            start = start if words else line
            words.append(unescaped(text))
            continue
        if words and text == "}":
            hint = f'end "{" ".join(words)}" with ";"'
            raise UsageError(f'unexpected "}}" in {path}:{line}', hint)
        if not words and text != "}":
            hint = (
                FILL_IN
                if TEMPLATE.search(content)
                else "remove it, or write a directive's name before it"
            )
            raise UsageError(f'unexpected "{text}" in {path}:{line}', hint)
        place = start if words else line
        yield Directive("".join(words[:1]), tuple(words[1:]), path, place), text
        words = []
    if words:
        raise UsageError(f'unexpected end of file, expecting ";" or "}}" in {path}:{line}')


def _lex(text: str, path: str) -> Iterator[tuple[str, int, bool]]:
    """Words and marks of a text as nginx's ngx_conf_read_token splits it: word, line, quoted."""
    at, line = 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            fault = f'unexpected end of file, expecting ";" or "}}" in {path}:{line}'
            is_quote = text[at] in ("'", '"')
            raise UsageError(fault, f"close the quote {text[at]} of that line" if is_quote else "")
        kind, at = match.lastgroup, match.end()
        if kind != "skipped":
            yield match[kind or 0], line, kind in QUOTED
        line += match[0].count("\n")
        if kind in QUOTED and (following := text[at : at + 1]) not in AFTER_QUOTE:
            hint = "put a space after the closing quote"
            raise UsageError(f'unexpected "{following}" in {path}:{line}', hint)


def _text(path: str) -> str:
    """A config file's text; bytes that are not UTF-8 become lone surrogates."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f'cannot read "{path}": {reason}', "name an nginx config file") from None
    if content.startswith(UTF_16):
        hint = "save the file as UTF-8"
        raise UsageError(f"{path} is UTF-16, which nginx does not read", hint)
    text = content.decode("utf-8", "surrogateescape")
    if text.startswith("\ufeff"):
        hint = "save the file as UTF-8 without a byte order mark"
        raise UsageError(f"byte order mark in {path}:1", hint)
    return text


def unescaped(word: str) -> str:
    """Remove the backslashes that nginx's own tokenizer removes; those of regexes stay."""
    if "\\" not in word:
        return word
    return re.sub(r"""\\([\\"'trn])""", lambda escape: ESCAPES[escape[1]], word)
