"""Log probabilities of an answer's tokens, made up so that they are consistent.

Each token is the most likely one in its place, as with temperature 0. The same answer has the same
probabilities, and those of one place add up to less than 1.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from .text import WORDS

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Logprobs:
    """The probabilities for the answer of that key, with the `top` likeliest tokens each."""

    key: int
    top: int
    chat: bool

    def of(self, pieces: Sequence[str], first: int = 0) -> Json:
        """Describe an answer's tokens from number `first` on, in the chat's or the text's form.

        `pieces` are all of the answer's tokens up to the last one to describe.
        """
        numbers = range(first, len(pieces))
        if self.chat:
            return {"content": [self._chat(pieces[n], n) for n in numbers], "refusal": None}
        # the token itself is listed even where no other is asked for, as vLLM does
        lists = [dict(self._likeliest(pieces[n], n)[: max(1, self.top)]) for n in numbers]
        offsets = [0, *accumulate(map(len, pieces))]
        return {
            "tokens": list(pieces[first:]),
            "token_logprobs": [self._likeliest(pieces[n], n)[0][1] for n in numbers],
            "top_logprobs": lists,
            "text_offset": offsets[first:-1],
        }

    def _chat(self, piece: str, number: int) -> Json:
        likeliest = self._likeliest(piece, number)
        others = [_token(text, logprob) for text, logprob in likeliest[: self.top]]
        return {**_token(piece, likeliest[0][1]), "top_logprobs": others}

    def _likeliest(self, piece: str, number: int) -> list[tuple[str, float]]:
        """The token, then the alternatives to it, each half as likely as the one before."""
        dice = random.Random(self.key + number)
        share = dice.uniform(0.4, 0.99)
        words = dice.sample(WORDS, self.top + 1)
        others = [word for word in words if word != piece]
        rest = (math.log((1 - share) / 2 ** (rank + 1)) for rank in range(len(others)))
        return [(piece, math.log(share)), *zip(others, rest, strict=True)]


def _token(text: str, logprob: float) -> Json:
    return {
        "token": text,
        "logprob": logprob,
        "bytes": list(text.encode("utf-8", "surrogatepass")),
    }
