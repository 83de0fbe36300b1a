"""Log probabilities of an answer's tokens, invented but consistent.

Each token is the most likely one at its position, as with temperature 0. The same answer has the
same probabilities, and those of one position add up to less than 1.
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
    """The probabilities for the answer with a key; `top` likeliest tokens per position."""

    key: int
    top: int
    chat: bool

    def of(self, pieces: Sequence[str], first: int = 0, prompt: int = 0) -> Json:
        """Return the log probabilities of an answer's tokens from number `first` on.

        They have the format of the chat or the text API. `pieces` are all of the answer's tokens up
        to the last one described. The first `prompt` of them are the prompt's; the very first has
        no probability, because no token precedes it.
        """
        numbers = range(first, len(pieces))
        if self.chat:
            return {"content": [self._chat(pieces[n], n) for n in numbers], "refusal": None}
        # the token itself is listed even where no other is asked for, as vLLM does
        likeliest = [
            None if prompt and n == 0 else self._likeliest(pieces[n], n - prompt) for n in numbers
        ]
        offsets = [0, *accumulate(map(len, pieces))]
        return {
            "tokens": list(pieces[first:]),
            "token_logprobs": [top and top[0][1] for top in likeliest],
            "top_logprobs": [top and dict(top[: max(1, self.top)]) for top in likeliest],
            "text_offset": offsets[first:-1],
        }

    def _chat(self, piece: str, number: int) -> Json:
        likeliest = self._likeliest(piece, number)
        others = [_token(text, logprob) for text, logprob in likeliest[: self.top]]
        return {**_token(piece, likeliest[0][1]), "top_logprobs": others}

    def _likeliest(self, piece: str, number: int) -> list[tuple[str, float]]:
        """The token, then the alternatives to it, each half as likely as the one before."""
        rng = random.Random(self.key + number)
        share = rng.uniform(0.4, 0.99)
        words = rng.sample(WORDS, self.top + 1)
        others = [word for word in words if word != piece]
        rest = (math.log((1 - share) / 2 ** (rank + 1)) for rank in range(len(others)))
        return [(piece, math.log(share)), *zip(others, rest, strict=True)]


def _token(text: str, logprob: float) -> Json:
    return {
        "token": text,
        "logprob": logprob,
        "bytes": list(text.encode("utf-8", "surrogatepass")),
    }
