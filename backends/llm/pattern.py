"""Make up a text that matches a regular expression of the simple kind that schemas have."""

import random
import re
import string

_CLASSES = {
    "d": string.digits,
    "w": string.ascii_letters + string.digits + "_",
    "s": " ",
    "D": string.ascii_letters,
    "W": "-.",
    "S": string.ascii_letters + string.digits,
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r"}
_ANY = string.ascii_lowercase + string.digits
_PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]
_MORE = 3  # repetitions beyond the least
_MOST = 5_000  # atoms read, repetitions included


class PatternError(Exception):
    """A pattern for which no text can be made."""


def matching_text(pattern: str, dice: random.Random) -> str:
    """Make up a text that `pattern` matches; raises PatternError where that fails.

    Known are literals, classes, groups, alternatives, quantifiers and anchors. A check of the
    result finds out what is beyond them, such as look-around and back-references.
    """
    try:
        text = _Reader(pattern, dice).alternatives()
        if re.search(pattern, text):
            return text
    except (re.error, IndexError, ValueError, OverflowError, RecursionError):
        pass
    raise PatternError(f'no text can be made for the pattern "{pattern}"')


class _Reader:
    """Reads a pattern from left to right and writes one text that it matches."""

    def __init__(self, pattern: str, dice: random.Random) -> None:
        self._pattern = pattern
        self._at = 0
        self._dice = dice
        self._left = _MOST

    def alternatives(self) -> str:
        """Read `a|b|c` up to its end or the bracket that closes it; one of them is the text."""
        texts = [self._sequence()]
        while self._next("|"):
            texts.append(self._sequence())
        return self._dice.choice(texts)

    def _sequence(self) -> str:
        parts: list[str] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            start = self._at
            part = self._atom()
            least, most = self._quantifier()
            end = self._at
            count = self._dice.randint(least, min(most, least + _MORE))
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
            return self._dice.choice(self._set())
        if letter == "\\":
            letter = self._take()
            if letter in "bBAZ":
                return ""
            return self._dice.choice(_CLASSES.get(letter, _CONTROLS.get(letter, letter)))
        if letter in "^$":
            return ""
        return self._dice.choice(_ANY) if letter == "." else letter

    def _group(self) -> str:
        if self._next("?"):
            if self._next("P") or self._pattern[self._at] == "<":
                self._at = self._pattern.index(">", self._at) + 1
            elif not self._next(":"):
                raise ValueError(self._pattern)
        text = self.alternatives()
        if not self._next(")"):
            raise ValueError(self._pattern)
        return text

    def _set(self) -> list[str]:
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
        if letter != "\\":
            return letter
        letter = self._take()
        return _CLASSES.get(letter, _CONTROLS.get(letter, letter))

    def _quantifier(self) -> tuple[int, int]:
        least, most = 1, 1
        if self._next("*"):
            least, most = 0, _MORE
        elif self._next("+"):
            least, most = 1, 1 + _MORE
        elif self._next("?"):
            least, most = 0, 1
        elif bounds := re.match(r"\{(\d+)(,?)(\d*)\}", self._pattern[self._at :]):
            self._at += bounds.end()
            least = int(bounds[1])
            most = int(bounds[3]) if bounds[3] else least + (_MORE if bounds[2] else 0)
        else:
            return 1, 1
        # lazy and possessive ones repeat as often
        if not self._next("?"):
            self._next("+")
        return least, most

    def _take(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def _next(self, letter: str) -> bool:
        if self._pattern[self._at : self._at + 1] != letter:
            return False
        self._at += 1
        return True
