"""The timing model: when tokens are due, who waits, what is shared and what is computed again."""

from dataclasses import dataclass
from dataclasses import replace as changed

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.backends.llm.engine import Engine, Generation, Request, Step, Token
from nginx_llm_lab.backends.llm.profiles import PROFILES, Profile

# a step takes 100 ms and 10 ms a token
SIMPLE = Profile("simple", 0.1, 0.01, max_num_seqs=2, max_num_batched_tokens=64, kv_blocks=64)


def drained(engine: Engine) -> list[Token]:
    """Every token still due."""
    tokens: list[Token] = []
    while engine.next_due() is not None:
        tokens += engine.step().tokens()
    return tokens


def times(tokens: list[Token], generation: Generation) -> list[float]:
    """When one generation's tokens are due."""
    return [round(token.at, 6) for token in tokens if token.generation is generation]


def test_a_single_request_has_its_prefill_then_one_token_per_step():
    """50 tokens of prompt: 100 ms + 50 x 10 ms, then 110 ms a token."""
    engine = Engine(SIMPLE)
    generation = engine.submit(10.0, Request(50, 4))

    assert times(drained(engine), generation) == [10.6, 10.71, 10.82, 10.93]


def test_sequences_decode_together():
    """Two running: 100 ms + 2 x 10 ms, for both at once."""
    engine = Engine(SIMPLE)
    first, second = (engine.submit(0.0, Request(10, 3)) for _ in range(2))
    tokens = drained(engine)

    assert times(tokens, first) == times(tokens, second) == [0.3, 0.42, 0.54]


def test_prompts_of_one_step_share_its_token_budget():
    """Two prompts of 48 in steps of 64 tokens: the second is cut, and ends a step later."""
    engine = Engine(SIMPLE)
    first, second = (engine.submit(0.0, Request(48, 2)) for _ in range(2))
    tokens = drained(engine)

    # 64 tokens: 0.74 s; then one decode and the 32 left: 0.43 s
    assert times(tokens, first) == [0.74, 1.17]
    assert times(tokens, second) == [1.17, 1.28]


def test_a_long_prompt_slows_every_decode():
    """63 tokens of prompt beside one decode: each step lasts 740 ms instead of 110 ms."""
    engine = Engine(SIMPLE)
    decoding = engine.submit(0.0, Request(1, 6))
    engine.submit(0.11, Request(126, 1))

    assert times(drained(engine), decoding) == [0.11, 0.85, 1.59, 1.7, 1.81, 1.92]


def test_decodes_come_before_prompts():
    """With two decodes in a budget of three tokens, one is left for a prompt of two."""
    engine = Engine(changed(SIMPLE, max_num_batched_tokens=3, max_num_seqs=3))
    for _ in range(2):
        engine.submit(0.0, Request(1, 9))
    late = engine.submit(0.1, Request(2, 1))
    engine.step()
    steps = [engine.step() for _ in range(3)]

    assert [(step.decoded, step.prefilled) for step in steps] == [(0, 2), (2, 1), (2, 1)]
    assert late in steps[2].generations


def test_a_step_pays_for_the_context_it_reads_and_for_pairs_of_tokens():
    """Four tokens of prompt are 10 pairs; then 4 tokens of context are read, then 5."""
    engine = Engine(Profile("reader", per_context=1.0, per_pair=0.1))
    generation = engine.submit(0.0, Request(4, 3))

    assert times(drained(engine), generation) == [1.0, 5.0, 10.0]


def test_a_chunk_pays_for_all_tokens_before_it():
    """Eight tokens in chunks of four are the same 36 pairs as in one chunk."""
    profile = Profile("pairs", per_pair=1.0, max_num_batched_tokens=4)
    engine = Engine(profile)
    generation = engine.submit(0.0, Request(8, 1))

    assert times(drained(engine), generation) == [36.0]


@pytest.mark.parametrize(("arrived", "started", "ended"), [(0.15, 0.22, 0.34), (0.05, 0.11, 0.24)])
def test_a_request_joins_the_first_step_that_begins_after_its_arrival(
    arrived: float, started: float, ended: float
):
    """Steps begin at 0.11 and 0.22 s; it is submitted during the first of them, on time or late."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(1, 2))
    drained_until(engine, 0.11)
    generation = engine.submit(arrived, Request(2, 1))

    assert times(drained(engine), generation) == [ended]
    assert generation.started == pytest.approx(started)


def drained_until(engine: Engine, until: float) -> list[Step]:
    """Let all happen that is due by a second."""
    steps = []
    while (due := engine.next_due()) is not None and due <= until + 1e-9:
        steps.append(engine.step())
    return steps


def test_a_third_request_waits_for_one_of_two_slots():
    """It starts the moment a slot is free, not before and not later."""
    engine = Engine(SIMPLE)
    for _ in range(2):
        engine.submit(0.0, Request(1, 3))
    third = engine.submit(0.0, Request(1, 1))
    engine.step()

    assert (engine.running, engine.waiting) == (2, 1)
    assert third.started is None
    assert times(drained(engine), third) == [0.47]
    assert third.started == pytest.approx(0.36)


def test_nothing_starts_before_it_arrives():
    """A caller that is late with `step` ends a step at a time before the newest request came."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(10, 1))
    engine.step()
    late = engine.submit(5.0, Request(10, 1))

    drained(engine)

    assert late.started == 5.0


def test_a_cancelled_generation_gives_its_slot_to_the_next():
    """Here during its prefill."""
    engine = Engine(SIMPLE)
    first, _ = (engine.submit(0.0, Request(10, 3)) for _ in range(2))
    third = engine.submit(0.0, Request(10, 1))
    engine.step()

    engine.cancel(first)
    tokens = drained(engine)

    assert third.started == pytest.approx(0.3)
    assert times(tokens, first) == []


def test_a_cancelled_decode_gets_no_token_of_the_current_step():
    """The blocks of the cancelled sequence are free at once."""
    engine = Engine(SIMPLE)
    generation = engine.submit(0.0, Request(20, 9))
    drained_until(engine, 0.3)

    engine.cancel(generation)

    assert (engine.running, engine.cache_usage, generation.produced) == (0, 0.0, 1)
    assert drained(engine) == []


def test_a_cancelled_prompt_is_not_computed_further():
    """Cut in half by the budget, it leaves after its first chunk."""
    engine = Engine(SIMPLE)
    generation = engine.submit(0.0, Request(128, 1))
    engine.step()

    engine.cancel(generation)

    assert [step.prefilled for step in (engine.step(),)] == [64]
    assert engine.next_due() is None
    assert engine.cache_usage == 0


def test_a_cancelled_generation_leaves_the_queue():
    """The cancelled request never starts, and the next in the queue does."""
    engine = Engine(changed(SIMPLE, max_num_seqs=1))
    first, second, third = (engine.submit(0.0, Request(10, 1)) for _ in range(3))
    engine.step()

    engine.cancel(second)
    engine.cancel(second)

    assert engine.waiting == 1
    assert {token.generation for token in drained(engine)} == {first, third}


def test_a_known_prefix_costs_no_prefill():
    """32 of 50 prompt tokens are two whole blocks: 18 are left to compute."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(50, 1, ("a", "b", "c")))
    drained(engine)

    again = engine.submit(10.0, Request(50, 1, ("a", "b", "other")))

    assert times(drained(engine), again) == [10.28]
    assert again.cached_tokens == 32
    assert (engine.prompt_tokens, engine.cached_tokens) == (100, 32)


def test_requests_of_one_step_share_their_prefix():
    """The second of two equal prompts computes its last token only."""
    engine = Engine(SIMPLE)
    for _ in range(2):
        engine.submit(0.0, Request(33, 1, ("a", "b")))
    engine.step()

    assert engine.step().prefilled == 33 + 1
    assert engine.cached_tokens == 32


def test_the_last_prompt_token_is_always_computed():
    """A prompt of two whole blocks that are both known has 16 cached tokens."""
    engine = Engine(SIMPLE)
    for at in (0.0, 10.0):
        last = engine.submit(at, Request(32, 1, ("a", "b")))
        drained(engine)

    assert last.cached_tokens == 16


def test_an_answer_is_remembered_as_far_as_it_was_computed():
    """The next turn of a conversation finds the answer's own blocks."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(16, 17, ("question", "answer")))
    drained(engine)

    again = engine.submit(10.0, Request(40, 1, ("question", "answer")))
    drained(engine)

    assert again.cached_tokens == 32


def test_a_request_waits_until_its_prompt_has_blocks():
    """Three blocks of eight are free: a prompt of four waits, with a slot free."""
    engine = Engine(changed(SIMPLE, max_num_seqs=9, max_num_batched_tokens=999, kv_blocks=8))
    engine.submit(0.0, Request(79, 2))
    second = engine.submit(0.0, Request(64, 1))
    engine.step()

    assert (engine.running, engine.waiting) == (1, 1)
    assert times(drained(engine), second) == [0.89 + 0.11 + 0.74]


def test_a_watermark_of_the_blocks_stays_free():
    """Of 200 blocks two stay free: a prompt of 100 beside one of 99 has to wait."""
    engine = Engine(changed(SIMPLE, max_num_batched_tokens=9999, kv_blocks=200))
    engine.submit(0.0, Request(16 * 99, 1))
    engine.submit(0.0, Request(16 * 100, 1))
    engine.step()

    assert engine.waiting == 1


def test_the_last_admitted_is_preempted_when_blocks_run_out_and_computed_again():
    """Two sequences of one block each grow in a cache of three; the second gives way."""
    engine = Engine(changed(SIMPLE, kv_blocks=3))
    first, second = (engine.submit(0.0, Request(15, 20)) for _ in range(2))
    steps = []
    while engine.next_due() is not None:
        steps.append(engine.step())

    assert (first.preemptions, second.preemptions, engine.preemptions) == (0, 1, 1)
    assert [first.produced, second.produced] == [20, 20]
    # 15 of the prompt and the two tokens that it had produced
    assert [step.prefilled for step in steps if step.prefilled] == [30, 17]


def test_a_preempted_sequence_finds_its_own_blocks_in_the_prefix_cache():
    """If they were not evicted: here the first sequence ends in the next step."""
    engine = Engine(changed(SIMPLE, kv_blocks=4))
    engine.submit(0.0, Request(31, 3, ("a",)))
    second = engine.submit(0.0, Request(31, 6, ("b", "c")))
    steps = []
    while engine.next_due() is not None:
        steps.append(engine.step())

    assert second.preemptions == 1
    assert [step.prefilled for step in steps if step.prefilled] == [62, 17]


def test_a_sequence_larger_than_the_cache_runs_alone():
    """The caller should refuse it; the engine does not stall."""
    engine = Engine(changed(SIMPLE, kv_blocks=2))
    generation = engine.submit(0.0, Request(70, 3))

    assert not engine.fits(72)
    assert len(times(drained(engine), generation)) == 3


def test_a_full_queue_is_reported():
    """A limit of one, reached by the second of two requests for one slot."""
    engine = Engine(changed(SIMPLE, max_num_seqs=1, max_queued=1))
    engine.submit(0.0, Request(1, 9))
    engine.step()

    assert not engine.queue_is_full

    engine.submit(0.0, Request(1, 9))

    assert engine.queue_is_full


def test_slow_affects_only_steps_that_begin_after_it():
    """The step under way takes 200 ms, the next ones three times their 110 ms."""
    engine = Engine(SIMPLE)
    generation = engine.submit(0.0, Request(10, 3))
    engine.step()

    engine.reconfigure(SIMPLE, 3.0)

    assert times(drained(engine), generation) == [0.2, 0.53, 0.86]


def test_a_new_profile_admits_the_queue_at_the_next_step():
    """The new profile has more slots."""
    engine = Engine(changed(SIMPLE, max_num_seqs=1))
    waiting = [engine.submit(0.0, Request(10, 2)) for _ in range(3)][-1]
    engine.step()

    engine.reconfigure(PROFILES["h100-8b"], 1.0)
    engine.step()

    assert waiting.started == pytest.approx(0.2)


def test_cache_usage_counts_the_blocks_that_running_sequences_hold():
    """64 tokens of prompt in 8 blocks of 16 are half."""
    engine = Engine(changed(SIMPLE, kv_blocks=8))
    engine.submit(0.0, Request(64, 1))
    engine.step()

    assert engine.cache_usage == 0.5


def test_jitter_follows_from_the_seed():
    """Two engines of one seed agree, a third does not."""

    def run(seed: int) -> list[float]:
        engine = Engine(changed(SIMPLE, jitter=0.2), seed=seed)
        generation = engine.submit(0.0, Request(10, 9))
        return times(drained(engine), generation)

    assert run(1) == run(1)
    assert run(1) != run(2)


@dataclass(frozen=True)
class Arrival:
    """A request that comes `after` the one before, and perhaps is cancelled."""

    after: float
    prompt: int
    output: int
    patience: float | None


arrivals = st.lists(
    st.builds(
        Arrival,
        after=st.floats(0, 2),
        prompt=st.integers(1, 60),
        output=st.integers(1, 40),
        patience=st.none() | st.floats(0, 5),
    ),
    max_size=25,
)
profiles = st.builds(
    Profile,
    st.just("any"),
    *[st.sampled_from([0.0, 0.01, 0.5]) for _ in range(4)],
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(6, 90),
    kv_blocks=st.integers(1, 12),
)


def played(profile: Profile, plan: list[Arrival]) -> tuple[list[Generation], list[Token], Engine]:
    """Submit and cancel as planned, looking at the engine after every event."""
    engine = Engine(profile)
    agenda: list[tuple[float, int, Arrival | Generation]] = []
    clock = 0.0
    for number, arrival in enumerate(plan):
        clock += arrival.after
        agenda.append((clock, number, arrival))
    generations: list[Generation] = []
    tokens: list[Token] = []

    def run(until: float) -> None:
        while (due := engine.next_due()) is not None and due <= until:
            step = engine.step()
            tokens.extend(step.tokens())
            assert step.prefilled + step.decoded <= profile.max_num_batched_tokens
            assert engine.running <= profile.max_num_seqs
            # one sequence alone may hold more than there is
            assert engine.cache.available >= 0 or engine.running <= 1

    while agenda:
        agenda.sort(key=lambda item: item[:2])
        at, number, what = agenda.pop(0)
        run(at)
        if isinstance(what, Generation):
            engine.cancel(what)
            continue
        blocks = tuple(range((what.prompt + what.output) // 16))
        generations.append(engine.submit(at, Request(what.prompt, what.output, blocks)))
        if what.patience is not None:
            agenda.append((at + what.patience, number, generations[-1]))
    run(float("inf"))
    return generations, tokens, engine


@given(profiles, arrivals)
def test_any_plan_conserves_tokens_and_frees_blocks(profile: Profile, plan: list[Arrival]):
    """Each token once and in order, requests start in order, no block is held at the end."""
    generations, tokens, engine = played(profile, plan)

    assert [token.at for token in tokens] == sorted(token.at for token in tokens)
    for arrival, generation in zip(plan, generations, strict=True):
        received = [token for token in tokens if token.generation is generation]
        assert [token.number for token in received] == list(range(generation.produced))
        assert generation.ended
        assert arrival.patience is not None or generation.produced == arrival.output
        assert all(token.last == (token.number == arrival.output - 1) for token in received)
    started = [generation.started for generation in generations if generation.started is not None]
    assert started == sorted(started)
    assert (engine.running, engine.waiting) == (0, 0)
    assert engine.cache.available == engine.cache.size
    assert engine._context == 0
    assert not any(engine._growing)


def with_lag(profile: Profile, plan: list[Arrival], *, lag: bool) -> list[tuple[int, float, int]]:
    """The tokens of a plan; with `lag`, each request is submitted when the next step has begun."""
    engine = Engine(profile)
    numbers: dict[Generation, int] = {}
    tokens: list[tuple[int, float, int]] = []
    began = arrived = 0.0

    def run() -> float:
        step = engine.step()
        tokens.extend(
            (numbers[token.generation], token.at, token.number) for token in step.tokens()
        )
        return step.at

    for arrival in plan:
        arrived = round(arrived + arrival.after, 6)  # without a rest below the engine's unit
        while (due := engine.next_due()) is not None and due <= arrived:
            began = run()
        if lag and began <= arrived and engine.next_due() is not None:
            began = run()
        blocks = tuple(range((arrival.prompt + arrival.output) // 16))
        numbers[engine.submit(arrived, Request(arrival.prompt, arrival.output, blocks))] = len(
            numbers
        )
    while engine.next_due() is not None:
        run()
    return tokens


@given(profiles, arrivals)
def test_parsing_within_a_step_changes_no_token(profile: Profile, plan: list[Arrival]):
    """The time that a caller needs to parse a request is no part of the model."""
    assert with_lag(profile, plan, lag=True) == with_lag(profile, plan, lag=False)


@given(profiles, arrivals)
def test_the_same_calls_give_the_same_tokens(profile: Profile, plan: list[Arrival]):
    """The engine is deterministic."""
    first, second = (played(profile, plan) for _ in range(2))

    assert [token[1:] for token in first[1]] == [token[1:] for token in second[1]]
