"""A timing model of one LLM server: who runs, who waits, and when each token is due.

The model does no I/O and has no clock: callers tell it the time, in seconds from any origin, and
ask what comes next. The same calls give the same tokens at the same times.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from .profiles import Profile

BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate.

    `blocks` names, in order, every full block of 16 tokens of prompt and output together; equal
    names mean equal text from the very start. `tag` is the caller's own mark.
    """

    prompt_tokens: int
    output_tokens: int
    blocks: tuple[Hashable, ...] = ()
    tag: int = 0


@dataclass(eq=False, slots=True)
class Generation:
    """A request on its way: for callers to read, for the engine alone to change."""

    request: Request
    arrived: float
    started: float | None = None
    cached_tokens: int = 0
    produced: int = 0
    ended: bool = False


class Token(NamedTuple):
    """One token, due at second `at`; `number` counts from 0."""

    generation: Generation
    at: float
    number: int
    last: bool


class PrefixCache:
    """Which token blocks the server remembers: at most `size`, the least recently used go first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._blocks: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, blocks: Sequence[Hashable]) -> int:
        """Count the leading blocks that are remembered."""
        for hits, block in enumerate(blocks):
            if block not in self._blocks:
                return hits
        return len(blocks)

    def add(self, blocks: Sequence[Hashable]) -> None:
        """Remember blocks, and forget the oldest beyond the size."""
        # last block first: a prefix outlives what hangs on it
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        self.resize(self.size)

    def clear(self) -> None:
        """Forget everything, as a server that has just started."""
        self._blocks.clear()

    def resize(self, size: int) -> None:
        """Hold at most `size` blocks from now on."""
        self.size = size
        while len(self._blocks) > size:
            self._blocks.popitem(last=False)


class Engine:
    """Continuous batching: prefills run side by side, one step gives all others their next token.

    A generation's first token is due `Profile.prefill_seconds` after its start. Then it joins the
    batch when the step under way ends; a step lasts `Profile.step_seconds` of all running
    generations, counted when it begins. `slow` stretches whatever begins after it is set.
    """

    def __init__(self, profile: Profile, slow: float = 1.0) -> None:
        self.profile = profile
        self.slow = slow
        self.cache = PrefixCache(profile.cache_blocks)
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self._waiting: deque[Generation] = deque()
        self._running: dict[Generation, None] = {}
        self._prefills: list[tuple[float, int, Generation]] = []
        self._ready: list[Generation] = []
        self._batch: list[Generation] = []
        self._step_due: float | None = None
        self._turn = count()

    @property
    def running(self) -> int:
        """Generations that hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Generations in the queue."""
        return len(self._waiting)

    @property
    def cache_usage(self) -> float:
        """The share of the cache's blocks that running generations fill, 0 to 1."""
        tokens = sum(each.request.prompt_tokens + each.produced for each in self._running)
        return min(1.0, tokens / (BLOCK_TOKENS * self.cache.size))

    def submit(self, at: float, request: Request) -> Generation:
        """Queue a request that arrived at second `at`; it starts at once if a slot is free."""
        generation = Generation(request, at)
        self._waiting.append(generation)
        self._admit(at)
        return generation

    def cancel(self, at: float, generation: Generation) -> None:
        """Drop a generation and give its slot to the next in the queue; harmless after its end."""
        if generation.ended:
            return
        if generation.started is None:
            generation.ended = True
            self._waiting.remove(generation)
            return
        self._prefills = [entry for entry in self._prefills if entry[2] is not generation]
        heapq.heapify(self._prefills)
        self._end(generation, at)

    def reconfigure(self, at: float, profile: Profile, slow: float) -> None:
        """Go on as another server: what has begun keeps its time."""
        self.profile = profile
        self.slow = slow
        self.cache.resize(profile.cache_blocks)
        self._admit(at)

    def next_due(self) -> float | None:
        """Second of the next event, None while there is nothing to do."""
        if not self._prefills:
            return self._step_due
        prefill_due = self._prefills[0][0]
        return prefill_due if self._step_due is None else min(prefill_due, self._step_due)

    def step(self) -> list[Token]:
        """Let the next event happen and return its tokens; a step's members share one second."""
        if self._prefills and self._prefills[0][0] == self.next_due():
            return [self._end_prefill()]
        if self._step_due is None:
            return []
        return self._end_step(self._step_due)

    def _admit(self, at: float) -> None:
        while self._waiting and len(self._running) < self.profile.max_running:
            generation = self._waiting.popleft()
            # a slot may have become free, in model time, before this request came
            self._start(generation, max(at, generation.arrived))

    def _start(self, generation: Generation, at: float) -> None:
        request = generation.request
        # the last prompt token is always computed: it gives the first output token
        reusable = request.blocks[: max(0, request.prompt_tokens - 1) // BLOCK_TOKENS]
        generation.started = at
        generation.cached_tokens = BLOCK_TOKENS * self.cache.match(reusable)
        self.prompt_tokens += request.prompt_tokens
        self.cached_tokens += generation.cached_tokens
        self._running[generation] = None
        uncached = request.prompt_tokens - generation.cached_tokens
        due = at + self.slow * self.profile.prefill_seconds(uncached)
        heapq.heappush(self._prefills, (due, next(self._turn), generation))

    def _end_prefill(self) -> Token:
        due, _, generation = heapq.heappop(self._prefills)
        self._remember(generation)
        token = self._produce(generation, due)
        if not token.last:
            self._ready.append(generation)
        if self._step_due is None:
            self._begin_step(due)
        return token

    def _end_step(self, due: float) -> list[Token]:
        batch = [generation for generation in self._batch if not generation.ended]
        tokens = [self._produce(generation, due) for generation in batch]
        self._begin_step(due)
        return tokens

    def _begin_step(self, at: float) -> None:
        members = [*self._batch, *self._ready]
        self._batch = [generation for generation in members if not generation.ended]
        self._ready = []
        seconds = self.slow * self.profile.step_seconds(len(self._running))
        self._step_due = at + seconds if self._batch else None

    def _produce(self, generation: Generation, at: float) -> Token:
        number = generation.produced
        generation.produced += 1
        last = generation.produced == generation.request.output_tokens
        if last:
            self._end(generation, at)
        return Token(generation, at, number, last)

    def _end(self, generation: Generation, at: float) -> None:
        generation.ended = True
        del self._running[generation]
        if generation.produced:
            self._remember(generation)
        self._admit(at)

    def _remember(self, generation: Generation) -> None:
        known = generation.request.prompt_tokens + generation.produced
        self.cache.add(generation.request.blocks[: known // BLOCK_TOKENS])
