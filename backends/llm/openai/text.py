"""Tokens without a vocabulary: count text, name its blocks, generate it.

A token is a word of at most eight ASCII characters with the space before it; a longer word is cut
after every eight characters; any other character is a separate token. So English has about four to
six characters per token, and a text of n short words has n tokens.
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence

from ..blocks import BLOCK_TOKENS
from ..profiles import Profile

_TOKEN = re.compile(r"\s*(?:[\x21-\x7e]{1,8}|[^\s\x21-\x7e])|\s+")
WORDS = tuple(
    _TOKEN.findall(
        " the of and to in a is that for it as was with be by on not he his but at are this have"
        " from or had an they which one you were all her she there would their we him been has"
        " when who will no more if out so up said what its about than into them can only other"
        " time new some could these two may first then do any like my now over such our man me"
        " even most made after also did many off before must well back through years much where"
        " your way down should because long each just state those people too mr how little good"
        " world make very year still see own work men day get here old life both"
    )
)


def tokens(text: str) -> list[str]:
    """Cut text into tokens, which joined give the text."""
    return _TOKEN.findall(text)


def blocks(parts: Sequence[str]) -> tuple[bytes, ...]:
    """Name each full block of 16 tokens by all the text up to its end."""
    return tuple(_block_names(parts))


def _block_names(parts: Sequence[str]) -> Iterator[bytes]:
    name = b""
    for end in range(BLOCK_TOKENS, len(parts) + 1, BLOCK_TOKENS):
        block = "\0".join(parts[end - BLOCK_TOKENS : end]).encode("utf-8", "surrogatepass")
        name = hashlib.blake2b(name + block, digest_size=12).digest()
        yield name


def key(seed: int, prompt: Sequence[str], choice: int) -> int:
    """Return the seed of an answer's length and words."""
    text = "\0".join((str(seed), str(choice), *prompt))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


def natural_length(answer_key: int, profile: Profile) -> int:
    """The length of this answer in tokens without a limit: log-normal over keys, at least 1."""
    factor = random.Random(answer_key).lognormvariate(0.0, profile.output_sigma)
    return max(1, round(profile.output_median * factor))


def words(answer_key: int, length: int) -> tuple[str, ...]:
    """Generate an answer of exactly `length` tokens."""
    picks = random.Random(answer_key).choices(WORDS, k=length)
    picks[0] = picks[0].lstrip()
    return tuple(picks)


def cut(pieces: tuple[str, ...], stops: Sequence[str], keep: bool = False) -> tuple[str, ...]:
    """End an answer before the first stop text (with `keep`, after it).

    The token that completes the stop text remains, though it may be empty.
    """
    text = "".join(pieces)
    places = [(text.index(stop), stop) for stop in stops if stop and stop in text]
    if not places:
        return pieces
    start, stop = min(places, key=lambda place: place[0] + len(place[1]))
    end = start + len(stop)
    kept: list[str] = []
    position = 0
    for piece in pieces:
        kept.append(piece[: max(0, (end if keep else start) - position)])
        position += len(piece)
        if position >= end:
            break
    return tuple(kept)
