"""The three words of a verdict."""

from enum import StrEnum


class Word(StrEnum):
    """PASS: the claim holds. FAIL: it does not. UNSURE: the evidence cannot decide."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a password
    FAIL = "FAIL"
    UNSURE = "UNSURE"
