"""A timing model of one LLM server: what each step computes, the queue, when tokens are due.

The model does no I/O and has no clock: callers pass the time, in seconds from any origin, and ask
for the next event. The same calls give the same tokens at the same times. Internally, time is a
whole number of picoseconds, so that a sum of steps does not depend on the order of its terms.

It follows vLLM's V1 scheduler (`vllm/v1/core/sched/scheduler.py`); docs/engine.md lists the rules.
"""

import random
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .blocks import BLOCK_TOKENS, BlockPool
from .profiles import Profile

PICOSECONDS = 10**12  # in a second
# one block in WATERMARK stays free when a request is admitted (vLLM: watermark=0.01)
WATERMARK = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One sequence to generate.

    `blocks` names, in order, every full block of 16 tokens of prompt and output together; equal
    names mean equal text from the start. `tag` is for the caller's own use.
    """

    prompt_tokens: int
    output_tokens: int
    blocks: tuple[Hashable, ...] = ()
    tag: int = 0


class _DecodeCounter:
    """The number of steps with decoding; a decoding sequence gets one token in each."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = 0


@dataclass(eq=False, slots=True)
class Generation:
    """A request in the engine: callers may read it, only the engine changes it.

    `arrived`, `started` (its first chunk was scheduled) and `first_token_at` are seconds.
    `cached_tokens` were found in the prefix cache at its first start.
    """

    request: Request
    arrived: float
    started: float | None = None
    first_token_at: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0
    ended: bool = False
    # in picoseconds
    _arrived: int = 0
    # tokens with their KV computed, and tokens produced, when it last began to decode or stopped
    _computed: int = 0
    _produced: int = 0
    # tokens to compute before the next token is produced: the prompt, and after a preemption
    # what was produced before
    _target: int = 0
    # leading blocks that the cache knows by name (`_name_blocks`), and all blocks held
    _named: int = 0
    _blocks: int = 0
    # while it decodes: the counter, and its reading when this began
    _counter: _DecodeCounter | None = None
    _joined: int = 0

    @property
    def produced(self) -> int:
        """Tokens produced so far."""
        if self._counter is None:
            return self._produced
        return self._produced + self._counter.steps - self._joined


class Token(NamedTuple):
    """One token, due at second `at`; `number` counts from 0."""

    generation: Generation
    at: float
    number: int
    last: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the engine did; it began at second `began` and ended at second `at`.

    Each of `generations` got one token. `prefilled` and `decoded` count the tokens computed.
    """

    began: float
    at: float
    generations: tuple[Generation, ...] = ()
    prefilled: int = 0
    decoded: int = 0

    def tokens(self) -> Iterator[Token]:
        """Yield the token of each generation; to be called before the engine's next step."""
        for generation in self.generations:
            number = generation.produced - 1
            yield Token(generation, self.at, number, number + 1 == generation.request.output_tokens)


@dataclass(slots=True)
class _Costs:
    """A profile's coefficients in picoseconds."""

    base: int
    token: int
    context: int
    pair: int


@dataclass(slots=True)
class _Work:
    """The current step; times in picoseconds.

    `context` is what its decoding sequences read, in tokens, `pairs` counts the pairs of tokens of
    its chunks, and `stretch` is its jitter. With `closed` it admits no request.
    """

    began: int
    ends: int
    costs: _Costs
    context: int
    stretch: float
    closed: bool
    chunks: list[Generation] = field(default_factory=list)
    prefilled: int = 0
    decoded: int = 0
    pairs: int = 0


class Engine:
    """Continuous batching with chunked prefill over KV blocks.

    All work is done in steps, one after the other while there is work. A step begins when
    the one before ends, or when a request arrives at an idle engine. It computes one token for each
    decoding sequence, and with what is left of `max_num_batched_tokens` chunks of prompts. All its
    tokens are due when it ends. `slow` stretches the steps that begin after it is set.

    The cost of a step does not grow with the number of sequences, except for one in 16 of them,
    which needs its next KV block.
    """

    def __init__(self, profile: Profile, slow: float = 1.0, seed: int = 0) -> None:
        self.profile = profile
        self.slow = slow
        self.cache = BlockPool(profile.kv_blocks)
        # counted once a request, when it is first admitted
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.preemptions = 0
        self.steps = 0
        self._random = random.Random(seed)
        self._costs = _costs(profile, slow)
        self._idle_since = 0
        self._waiting: deque[Generation] = deque()
        # a prompt that is computed in part; always the last that was admitted
        self._partial: Generation | None = None
        self._work: _Work | None = None
        self._counter = _DecodeCounter()
        # in the order of their admission
        self._decoding: dict[Generation, None] = {}
        # the sum over decoding sequences of their tokens with KV computed
        self._context = 0
        # by the reading of the counter at which a sequence's last token is produced
        self._last_at: dict[int, list[Generation]] = {}
        # by the reading of the counter, modulo 16, at which a sequence needs its next block
        self._growing: list[dict[Generation, None]] = [{} for _ in range(BLOCK_TOKENS)]

    @property
    def running(self) -> int:
        """Sequences that were admitted and have not ended."""
        return len(self._decoding) + self._prefilling

    @property
    def waiting(self) -> int:
        """Requests in the queue, preempted ones included."""
        return len(self._waiting)

    @property
    def queue_is_full(self) -> bool:
        """Whether the profile's queue limit is reached."""
        return 0 < self.profile.max_queued <= len(self._waiting)

    @property
    def cache_usage(self) -> float:
        """The share of the KV blocks that running sequences hold, 0 to 1."""
        return self.cache.usage

    def fits(self, tokens: int) -> bool:
        """Tell whether a sequence of `tokens` tokens fits into the KV blocks on its own."""
        return _blocks(tokens) <= self.profile.kv_blocks

    def submit(self, at: float, request: Request) -> Generation:
        """Queue a request that arrived at second `at`.

        If it arrived before the current step began, it joins that step as if it had been submitted
        in time: a caller takes some time to parse a request.
        """
        generation = Generation(request, at)
        generation._arrived = round(at * PICOSECONDS)
        generation._target = max(1, request.prompt_tokens)
        self._waiting.append(generation)
        work, alone = self._work, len(self._waiting) == 1
        if work and alone and generation._arrived < work.began:
            self._fill(work)
        return generation

    def cancel(self, generation: Generation) -> None:
        """Drop a generation and free its blocks; harmless after its end.

        The current step keeps its duration.
        """
        if generation.ended:
            return
        generation.ended = True
        if generation._counter is not None:
            self._leave_decoding(generation)
            self._release(generation)
        elif generation._blocks:
            self._partial = None if self._partial is generation else self._partial
            self._release(generation)
        else:
            self._waiting.remove(generation)

    def reconfigure(self, profile: Profile, slow: float) -> None:
        """Change the profile; the current step keeps its duration."""
        self.profile = profile
        self.slow = slow
        self._costs = _costs(profile, slow)
        self.cache.resize(profile.kv_blocks)

    def next_due(self) -> float | None:
        """Second of the next event, None while there is nothing to do."""
        if self._work:
            return self._work.ends / PICOSECONDS
        if not self._waiting:
            return None
        return max(self._idle_since, self._waiting[0]._arrived) / PICOSECONDS

    def step(self) -> Step:
        """Process the next event: end the current step, if there is one, and begin the next.

        An idle engine only begins a step; the result has no tokens then.
        """
        work, self._work = self._work, None
        if work is None:
            at = max(self._idle_since, self._waiting[0]._arrived if self._waiting else 0)
            self._begin(at)
            return Step(at / PICOSECONDS, at / PICOSECONDS)
        step = self._end(work)
        self._begin(work.ends)
        return step

    @property
    def _prefilling(self) -> int:
        chunks = sum(not chunk.ended for chunk in self._work.chunks) if self._work else 0
        # a partial prompt may have had no room in this step
        left_out = self._partial is not None and not (
            self._work and self._partial in self._work.chunks
        )
        return chunks + left_out

    def _end(self, work: _Work) -> Step:
        """Produce a step's tokens: one for each decoding sequence and each prompt completed."""
        at = work.ends / PICOSECONDS
        self.steps += 1
        batch = list(self._decoding)
        if batch:
            self._counter.steps += 1
            self._context += len(batch)
            for generation in self._last_at.pop(self._counter.steps, ()):
                self._leave_decoding(generation)
                self._finish(generation)
        for generation in work.chunks:
            if generation.ended or generation._computed < generation._target:
                continue
            generation._produced += 1
            generation.first_token_at = generation.first_token_at or at
            batch.append(generation)
            if generation._produced == generation.request.output_tokens:
                self._finish(generation)
            else:
                self._join_decoding(generation)
        return Step(work.began / PICOSECONDS, at, tuple(batch), work.prefilled, work.decoded)

    def _begin(self, at: int) -> None:
        """Schedule the next step, or go idle.

        Running sequences come first, then a partly computed prompt, then the queue in its order.
        A step that preempted admits no request (vLLM: `schedule`).
        """
        preempted = self._grow()
        stretch = (
            self._random.lognormvariate(0.0, self.profile.jitter) if self.profile.jitter else 1
        )
        work = _Work(at, at, self._costs, self._context, stretch, preempted)
        work.decoded = len(self._decoding)
        if self._partial and self._room(work) > 0:
            generation, self._partial = self._partial, None
            self._compute(generation, work)
        self._fill(work)
        if not work.decoded and not work.chunks:
            self._idle_since = at
            return
        self._work = work

    def _fill(self, work: _Work) -> None:
        """Admit requests from the queue while a step has room, and set the step's end."""
        while not work.closed and self._waiting and self._room(work) > 0:
            generation = self._waiting[0]
            if generation._arrived > work.began or not self._admit(generation, work):
                break
            self._waiting.popleft()
            self._compute(generation, work)
        work.ends = work.began + self._duration(work)

    def _room(self, work: _Work) -> int:
        """The tokens for which a step has room."""
        return self.profile.max_num_batched_tokens - work.decoded - work.prefilled

    def _duration(self, work: _Work) -> int:
        costs = work.costs
        seconds = (
            costs.base
            + costs.token * (work.decoded + work.prefilled)
            + costs.context * work.context
            + costs.pair * work.pairs
        )
        return round(seconds * work.stretch)

    def _grow(self) -> bool:
        """Take the next block of each decoding sequence whose last one is full.

        While the blocks do not suffice, the sequence admitted last is preempted: its blocks are
        freed, and it waits at the head of the queue to be computed again (vLLM: a failed
        `allocate_slots` preempts `self.running.pop()`). The last one running never is.
        """
        growing = self._growing[self._counter.steps % BLOCK_TOKENS]
        preempted = False
        while len(growing) > self.cache.available and self._preempt():
            preempted = True
        if growing:
            self.cache.take(len(growing))
            for generation in growing:
                generation._blocks += 1
                self._name_blocks(generation, self._computed(generation))
        return preempted

    def _preempt(self) -> bool:
        if len(self._decoding) + (self._partial is not None) < 2:
            return False
        generation = self._partial or next(reversed(self._decoding))
        if generation is self._partial:
            self._partial = None
        else:
            self._leave_decoding(generation)
        self._release(generation)
        generation._computed = 0
        generation._target = generation.request.prompt_tokens + generation._produced
        generation.preemptions += 1
        self.preemptions += 1
        self._waiting.appendleft(generation)
        return True

    def _admit(self, generation: Generation, work: _Work) -> bool:
        """Reserve the blocks of all tokens to compute, if a slot and enough blocks are free.

        Blocks of the prefix cache are shared. The last token is always computed: it gives the next
        one (vLLM: `get_computed_blocks`, at most `num_tokens - 1`). A watermark of the blocks stays
        free unless nothing else runs (vLLM: `watermark_blocks` of `can_allocate`).
        """
        running = len(self._decoding) + len(work.chunks) + (self._partial is not None)
        if running >= self.profile.max_num_seqs:
            return False
        reusable = generation.request.blocks[: (generation._target - 1) // BLOCK_TOKENS]
        hits = self.cache.match(reusable)
        shared = reusable[:hits]
        needed = _blocks(generation._target) - hits
        left = self.cache.available - self.cache.count_cached(shared) - needed
        if running and left < self.cache.size // WATERMARK:
            return False
        self.cache.hold(shared)
        self.cache.take(needed)
        generation._blocks = hits + needed
        generation._named = hits
        generation._computed = hits * BLOCK_TOKENS
        if generation.started is None:
            generation.started = work.began / PICOSECONDS
            generation.cached_tokens = generation._computed
            self.prompt_tokens += generation.request.prompt_tokens
            self.cached_tokens += generation.cached_tokens
        return True

    def _compute(self, generation: Generation, work: _Work) -> None:
        """Put the next chunk of a prompt into the step.

        A block is known to the prefix cache as soon as its chunk is scheduled, so that the next
        request of the same step can share it (vLLM: `cache_blocks` in `allocate_slots`).
        """
        before = generation._computed
        tokens = min(self._room(work), generation._target - before)
        generation._computed += tokens
        self._name_blocks(generation, generation._computed)
        if generation._computed < generation._target:
            self._partial = generation
        work.chunks.append(generation)
        work.prefilled += tokens
        work.pairs += tokens * before + tokens * (tokens + 1) // 2

    def _join_decoding(self, generation: Generation) -> None:
        joined = self._counter.steps
        generation._counter = self._counter
        generation._joined = joined
        self._decoding[generation] = None
        self._context += generation._computed
        left = generation.request.output_tokens - generation._produced
        self._last_at.setdefault(joined + left, []).append(generation)
        self._growing[(joined - generation._computed) % BLOCK_TOKENS][generation] = None

    def _leave_decoding(self, generation: Generation) -> None:
        """Record what a sequence has computed and produced, and stop decoding it."""
        del self._decoding[generation]
        del self._growing[(generation._joined - generation._computed) % BLOCK_TOKENS][generation]
        left = generation.request.output_tokens - generation._produced
        leaving = self._last_at.get(generation._joined + left)
        if leaving:
            leaving.remove(generation)
        computed = self._computed(generation)
        self._context -= computed
        generation._produced += computed - generation._computed
        generation._computed = computed
        generation._counter = None

    def _computed(self, generation: Generation) -> int:
        return generation._computed + self._counter.steps - generation._joined

    def _finish(self, generation: Generation) -> None:
        generation.ended = True
        self._release(generation)

    def _release(self, generation: Generation) -> None:
        self._name_blocks(generation, generation._computed)
        names = generation.request.blocks[: generation._named]
        self.cache.release(names, generation._blocks - generation._named)
        generation._blocks = generation._named = 0

    def _name_blocks(self, generation: Generation, computed: int) -> None:
        full = min(computed // BLOCK_TOKENS, len(generation.request.blocks))
        for name in generation.request.blocks[generation._named : full]:
            self.cache.give_name(name)
        generation._named = max(full, generation._named)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


def _costs(profile: Profile, slow: float) -> _Costs:
    seconds = (profile.step_base, profile.per_token, profile.per_context, profile.per_pair)
    return _Costs(*(round(value * slow * PICOSECONDS) for value in seconds))
