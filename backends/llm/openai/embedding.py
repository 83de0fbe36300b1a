"""Embedding vectors and token ids without a model; equal tokens always get equal ones."""

import hashlib
import math
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence

_VOCABULARY = 128_000
_SPREAD = 8  # dimensions that a token changes


def token_id(token: str) -> int:
    """Return the id of a token; different tokens may share an id."""
    return int.from_bytes(_digest(token, 8)) % _VOCABULARY


def vector(tokens: Sequence[str], dimensions: int) -> list[float]:
    """Return a vector of length 1: texts with common words are closer than texts without.

    Each token adds or subtracts 1 in some dimensions that follow from its letters (feature
    hashing), regardless of its case and position.
    """
    sums = [0] * dimensions
    for token, count in Counter(token.strip().lower() for token in tokens).items():
        digest = _digest(token, 4 * _SPREAD)
        for start in range(0, len(digest), 4):
            number = int.from_bytes(digest[start : start + 4])
            sums[(number >> 1) % dimensions] += count if number & 1 else -count
    length = math.hypot(*sums)
    if not length:
        return [1.0, *[0.0] * (dimensions - 1)]
    return [part / length for part in sums]


def base64(values: Sequence[float]) -> str:
    """Encode numbers as OpenAI's SDK asks for them: 32-bit floats, little-endian, in base64."""
    return b64encode(array("f", values).tobytes()).decode()


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
