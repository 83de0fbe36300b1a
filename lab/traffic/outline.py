"""Draw a scenario's numbers: tenants, tokens and pauses, many conversations at a time.

Each number depends only on the seed, its purpose and its position, so that a live load and a
simulation of the same scenario see the same requests.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from .scenario import Lengths, Scenario

BLOCK = 1024  # conversations, or users, whose numbers are drawn together
_CLIENT, _PAUSE, _CONVERSATION = 11, 12, 13

Numbers = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Conversations:
    """The numbers of BLOCK conversations: one tenant for each, the others by turn.

    `prompts` has the number of tokens that the user writes in a turn, `answers` that of its answer;
    `pauses` has the seconds between the previous answer and this turn.
    """

    tenants: Numbers
    prompts: Numbers
    answers: Numbers
    pauses: Seconds


class Outline:
    """The numbers of a scenario, drawn on demand; the latest blocks are kept."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.conversations = lru_cache(maxsize=256)(self._conversations)
        self.clients = lru_cache(maxsize=256)(self._clients)
        self.pauses = lru_cache(maxsize=256)(self._pauses)

    def client(self, user: int) -> int:
        """Return the number of a user's client address."""
        return int(self.clients(user // BLOCK)[user % BLOCK])

    def pause(self, user: int, conversation: int) -> float:
        """Return the think time of a closed-loop user before a new conversation, in seconds."""
        return float(self.pauses(user // BLOCK, conversation)[user % BLOCK])

    def _conversations(self, block: int) -> Conversations:
        scenario, rng = self.scenario, self._rng(_CONVERSATION, block)
        shape = (BLOCK, scenario.sessions.turns)
        return Conversations(
            tenants(rng, scenario),
            lengths(rng, scenario.prompt, shape),
            lengths(rng, scenario.output, shape),
            rng.exponential(scenario.sessions.think, shape),
        )

    def _clients(self, block: int) -> Numbers:
        return self._rng(_CLIENT, block).integers(self.scenario.clients, size=BLOCK)

    def _pauses(self, block: int, conversation: int) -> Seconds:
        rng = self._rng(_PAUSE, block, conversation)
        return rng.exponential(self.scenario.sessions.think, BLOCK)

    def _rng(self, *path: int) -> np.random.Generator:
        return np.random.default_rng([self.scenario.seed, *path])


def tenants(rng: np.random.Generator, scenario: Scenario) -> Numbers:
    """Draw the tenants of BLOCK conversations."""
    n, skew = scenario.tenants.n, scenario.tenants.skew
    if not skew:
        return rng.integers(n, size=BLOCK)
    shares = np.cumsum(np.arange(1, n + 1, dtype=float) ** -skew)
    drawn = rng.random(BLOCK) * shares[-1]
    places: Numbers = np.searchsorted(shares, drawn, side="right").astype(np.int64)
    return places


def lengths(rng: np.random.Generator, wanted: Lengths, shape: tuple[int, ...]) -> Numbers:
    """Draw numbers of tokens."""
    if wanted.dist == "uniform":
        return np.asarray(rng.integers(wanted.min, wanted.max, shape, endpoint=True), np.int64)
    if wanted.dist == "lognormal":
        drawn = wanted.median * np.exp(wanted.sigma * rng.standard_normal(shape))
        return np.clip(np.rint(np.minimum(drawn, wanted.max)), 1, wanted.max).astype(np.int64)
    return np.full(shape, wanted.tokens, dtype=np.int64)
