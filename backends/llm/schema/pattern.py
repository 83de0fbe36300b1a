"""Generate a text that matches a simple regular expression, such as a JSON Schema's pattern."""

import random
import re
import string
import sys

_CLASSES = {
    "d": string.digits,
    "w": string.ascii_letters + string.digits + "_",
    "s": " ",
    "D": string.ascii_letters,
    "W": "-.",
    "S": string.ascii_letters + string.digits,
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}
_ANY = string.ascii_letters + string.digits
_PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]
_HEX_DIGITS = {"x": 2, "u": 4}  # of \x41 and \u0041
_MORE = 3  # repetitions beyond the minimum
_TRIES = 200
_MOST = 10_000  # atoms read in all tries, repetitions included


class PatternError(Exception):
    """A pattern for which no text can be made."""


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches somewhere in the text; False for an invalid pattern."""
    try:
        return re.search(_in_python(pattern), text) is not None
    except (re.error, OverflowError, RecursionError):
        return False


def matching_text(pattern: str, rng: random.Random, least: int = 0, most: int = sys.maxsize) -> str:
    """Generate a text of `least` to `most` characters that `pattern` matches.

    Supported are literals, classes, groups, alternatives, quantifiers and anchors. Look-around is
    satisfied by further attempts. Raises PatternError if none succeeds, as with back-references.
    """
    reader, more = _Reader(_in_python(pattern), rng), _MORE
    try:
        for _ in range(_TRIES):
            text = reader.text(more)
            if len(text) < least:
                more = min(2 * more + 1, 4 * least)
            elif len(text) > most:
                more //= 2
            elif matches(pattern, text):
                return text
        # a pattern that does not end in "$" says nothing about what follows
        if len(text) < least <= _MOST and matches(pattern, text := text.ljust(least, "x")):
            return text
    except (IndexError, ValueError, OverflowError, RecursionError):
        pass
    raise PatternError(f'no text can be made for the pattern "{pattern}"')


def _in_python(pattern: str) -> str:
    """Write JavaScript's `(?<name>…)` as Python does, `(?P<name>…)`."""
    return re.sub(r"(?<!\\)\(\?<(?![=!])", "(?P<", pattern)


class _Reader:
    """Reads a pattern from left to right and writes one text that it matches."""

    def __init__(self, pattern: str, rng: random.Random) -> None:
        self._pattern = pattern
        self._at = 0
        self._rng = rng
        self._left = _MOST
        self._more = _MORE
        # the characters of each class in brackets and its end, by its start
        self._sets: dict[int, tuple[list[str], int]] = {}

    def text(self, more: int) -> str:
        """Read the whole pattern, with at most `more` repetitions beyond the minimum."""
        self._at, self._more = 0, more
        return self.alternatives()

    def alternatives(self) -> str:
        """Read `a|b|c` up to its end or closing bracket; return a text for one alternative."""
        texts = [self._sequence()]
        while self._next("|"):
            texts.append(self._sequence())
        return self._rng.choice(texts)

    def _sequence(self) -> str:
        parts: list[str] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            start = self._at
            part = self._atom()
            least, most = self._quantifier()
            end = self._at
            count = self._rng.randint(least, min(most, least + self._more))
            texts = [part] if count else []
            for _ in range(count - 1):
                # read the atom again: [a-z]{3} are three letters, not one three times
                self._at = start
                texts.append(self._atom())
            self._at = end
            parts += texts
        return "".join(parts)

    def _atom(self) -> str:
        self._left -= 1
        if self._left < 0:
            raise ValueError(self._pattern)
        letter = self._take()
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._rng.choice(self._set())
        if letter == "\\":
            return "" if self._anchor() else self._rng.choice(self._escaped())
        if letter in "^$":
            return ""
        return self._rng.choice(_ANY) if letter == "." else letter

    def _group(self) -> str:
        is_look_around = False
        if self._next("?"):
            is_look_around = self._look_around()
            if self._next("P"):
                self._at = self._pattern.index(">", self._at) + 1
            elif not is_look_around and not self._next(":"):
                raise ValueError(self._pattern)
        text = self.alternatives()
        if not self._next(")"):
            raise ValueError(self._pattern)
        return "" if is_look_around else text

    def _look_around(self) -> bool:
        return any(self._next(mark) for mark in ("=", "!", "<=", "<!"))

    def _set(self) -> list[str]:
        start = self._at
        if start not in self._sets:
            members = self._members()
            self._sets[start] = members, self._at
        members, self._at = self._sets[start]
        return members

    def _members(self) -> list[str]:
        negated = self._next("^")
        members: list[str] = []
        first = True
        while first or self._pattern[self._at] != "]":
            first = False
            low = self._member()
            following = self._pattern[self._at : self._at + 2]
            if len(low) == 1 and following[:1] == "-" and following[1:] != "]":
                self._at += 1
                high = self._member()
                members += map(chr, range(ord(low), ord(high) + 1))
            else:
                members += low
        self._at += 1
        return [letter for letter in _PRINTABLE if letter not in members] if negated else members

    def _member(self) -> str:
        letter = self._take()
        return self._escaped() if letter == "\\" else letter

    def _escaped(self) -> str:
        """Read what follows a backslash; return the characters for which it stands."""
        letter = self._take()
        if letter in _HEX_DIGITS:
            return chr(int("".join(self._take() for _ in range(_HEX_DIGITS[letter])), 16))
        return _CLASSES.get(letter, _CONTROLS.get(letter, letter))

    def _anchor(self) -> bool:
        return any(self._next(letter) for letter in "bBAZ")

    def _quantifier(self) -> tuple[int, int]:
        least, most = 1, 1
        if self._next("*"):
            least, most = 0, sys.maxsize
        elif self._next("+"):
            least, most = 1, sys.maxsize
        elif self._next("?"):
            least, most = 0, 1
        elif bounds := re.match(r"\{(\d+)(,?)(\d*)\}", self._pattern[self._at :]):
            self._at += bounds.end()
            least = int(bounds[1])
            most = int(bounds[3]) if bounds[3] else sys.maxsize if bounds[2] else least
        else:
            return 1, 1
        # a lazy or possessive quantifier allows the same counts
        if not self._next("?"):
            self._next("+")
        return least, most

    def _take(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def _next(self, text: str) -> bool:
        if not self._pattern.startswith(text, self._at):
            return False
        self._at += len(text)
        return True
