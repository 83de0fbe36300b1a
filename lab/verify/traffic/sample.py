"""Generate a short text that a regex matches."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from ...errors import UsageError
from ...nginxconf.maps import pattern

NO_GROUPS: Mapping[str, str] = MappingProxyType({})
# tried in this order for a class or an escape: the first that it matches stands for it
CANDIDATES = "a1b0z-_./A ~" + "".join(map(chr, range(33, 256)))
QUANTIFIER = re.compile(r"(?:([*?])|(\+)|\{(\d+)(?:,\d*)?\})[?+]?")
GROUP = re.compile(r"\?(?:P?<(\w+)>|P?'(\w+)'|[a-zA-Z-]*:|>)")
NAMED_REFERENCE = re.compile(r"\(\?P=(\w+)\)")
CLASS = re.compile(r"\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]", re.DOTALL)
ESCAPE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|.)", re.DOTALL)


def sample(text: str, *, ignore_case: bool = False, groups: Mapping[str, str] = NO_GROUPS) -> str:
    """A short text that an nginx regex matches; empty if none was found.

    `groups` are wanted texts of groups, by name in lower case or by number.
    """
    try:
        compiled = pattern(text, ignore_case=ignore_case, where="")
        text_matched = _Sampler(compiled.pattern.decode("latin-1"), groups).alternatives()
    except (UsageError, re.error):
        return ""
    return text_matched if compiled.search(text_matched.encode("latin-1", "replace")) else ""


def sampled(text: str, captures: Mapping[str, str], *, ignore_case: bool) -> str:
    """A text that a regex matches, with these captures if it can have them."""
    return sample(text, ignore_case=ignore_case, groups=captures) or sample(
        text, ignore_case=ignore_case
    )


class _Sampler:
    """Reads a regex from left to right and joins the shortest text for every part."""

    def __init__(self, text: str, wanted: Mapping[str, str]) -> None:
        self.text = text
        self.wanted = wanted
        self.at = 0
        self.groups: dict[str, str] = {}
        self.count = 0

    def alternatives(self) -> str:
        """The first of several alternatives, up to the end of their group."""
        first = self._sequence()
        while self._take("|"):
            self._sequence()
        return first

    def _sequence(self) -> str:
        text = ""
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            part = self._part()
            text += part * self._least()
        return text

    def _part(self) -> str:
        if self._take("("):
            return self._group()
        for form in (CLASS, ESCAPE):
            if match := form.match(self.text, self.at):
                self.at = match.end()
                return self._character(match[0])
        character = self.text[self.at]
        self.at += 1
        return {".": "a", "^": "", "$": ""}.get(character, character)

    def _least(self) -> int:
        """The minimum repetitions of the part before."""
        match = QUANTIFIER.match(self.text, self.at)
        if match is None:
            return 1
        self.at = match.end()
        return 0 if match[1] else 1 if match[2] else int(match[3])

    def _group(self) -> str:
        """The text of a group; empty for look-around and flags."""
        if match := NAMED_REFERENCE.match(self.text, self.at - 1):
            self.at = match.end()
            return self.groups.get(match[1], "")
        match = GROUP.match(self.text, self.at)
        looks = match is None and self.text[self.at : self.at + 1] == "?"
        names = [name for name in (match.groups() if match else ()) if name]
        if not looks and (match is None or names):
            self.count += 1
            names.append(str(self.count))
        self.at = match.end() if match else self.at
        text = self.alternatives()
        self._take(")")
        text = next(
            (self.wanted[name.lower()] for name in names if name.lower() in self.wanted), text
        )
        self.groups |= dict.fromkeys(names, text)
        return "" if looks else text

    def _character(self, text: str) -> str:
        """A character for a class or an escape; for a back-reference the text of its group."""
        if re.fullmatch(r"\\[1-9]", text):
            return self.groups.get(text[1], "")
        if text in (r"\b", r"\B", r"\A", r"\Z"):
            return ""
        form = re.compile(text, re.DOTALL)
        return next((candidate for candidate in CANDIDATES if form.fullmatch(candidate)), text[-1])

    def _take(self, character: str) -> bool:
        taken = self.text.startswith(character, self.at)
        self.at += taken
        return taken
