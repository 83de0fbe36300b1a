"""The timing model: when tokens are due, who waits, what is remembered."""

from dataclasses import dataclass
from dataclasses import replace as changed

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx_llm_lab.backends.llm.engine import Engine, Generation, PrefixCache, Request, Token
from nginx_llm_lab.backends.llm.profiles import PROFILES, Profile

SIMPLE = Profile("simple", 1.0, 0.01, 0.1, 0.02, max_running=2, cache_blocks=8)


def drained(engine: Engine) -> list[Token]:
    """Every token still due."""
    tokens = []
    while engine.next_due() is not None:
        tokens += engine.step()
    return tokens


def times(tokens: list[Token], generation: Generation) -> list[float]:
    """When one generation's tokens are due."""
    return [round(token.at, 6) for token in tokens if token.generation is generation]


def test_a_lone_request_has_its_prefill_then_a_token_a_step():
    """50 tokens of prompt: 1 s + 50 x 10 ms, then 100 ms a token."""
    engine = Engine(SIMPLE)
    generation = engine.submit(10.0, Request(50, 4))

    assert times(drained(engine), generation) == [11.5, 11.6, 11.7, 11.8]


def test_a_step_takes_longer_with_more_running():
    """Two running: 100 ms + 20 ms."""
    engine = Engine(SIMPLE)
    first, second = (engine.submit(0.0, Request(100, 3)) for _ in range(2))
    tokens = drained(engine)

    assert times(tokens, first) == [2.0, 2.12, 2.24]
    # ready when the first one's step has just begun: it joins the next one
    assert times(tokens, second) == [2.0, 2.24, 2.34]


def test_the_third_of_two_slots_waits_for_the_first_to_end():
    """It starts the moment a slot is free, not before and not later."""
    engine = Engine(SIMPLE)
    for _ in range(2):
        engine.submit(0.0, Request(100, 3))
    third = engine.submit(0.5, Request(100, 1))

    assert (engine.running, engine.waiting) == (2, 1)
    assert third.started is None
    assert times(drained(engine), third) == [4.24]
    assert third.started == pytest.approx(2.24)


def test_nothing_starts_before_it_arrives():
    """A caller that is late with `step` frees a slot at a time before the newest request came."""
    engine = Engine(changed(SIMPLE, max_running=1))
    engine.submit(0.0, Request(100, 1))
    late = engine.submit(5.0, Request(100, 1))

    engine.step()

    assert late.started == 5.0


def test_a_cancelled_generation_gives_its_slot_to_the_next():
    """Whatever it was doing: here its prefill."""
    engine = Engine(SIMPLE)
    first, _ = (engine.submit(0.0, Request(100, 3)) for _ in range(2))
    third = engine.submit(0.5, Request(100, 1))

    engine.cancel(1.0, first)

    assert third.started == 1.0
    assert times(drained(engine), first) == []


def test_a_cancelled_generation_leaves_the_queue():
    """It never starts, and the one behind it is next."""
    engine = Engine(changed(SIMPLE, max_running=1))
    first, second, third = (engine.submit(0.0, Request(100, 1)) for _ in range(3))

    engine.cancel(0.5, second)
    engine.cancel(0.6, second)

    assert engine.waiting == 1
    assert {token.generation for token in drained(engine)} == {first, third}


def test_a_known_prefix_costs_no_prefill():
    """32 of 50 prompt tokens are two whole blocks: 18 are left to compute."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(50, 1, ("a", "b", "c")))
    drained(engine)

    again = engine.submit(10.0, Request(50, 1, ("a", "b", "other")))

    assert again.cached_tokens == 32
    assert times(drained(engine), again) == [11.18]
    assert (engine.prompt_tokens, engine.cached_tokens) == (100, 32)


def test_the_last_prompt_token_is_always_computed():
    """A prompt of two whole blocks that are both known has 16 cached tokens."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(32, 1, ("a", "b")))
    drained(engine)

    assert engine.submit(10.0, Request(32, 1, ("a", "b"))).cached_tokens == 16


def test_an_answer_is_remembered_as_far_as_it_was_produced():
    """The next turn of a conversation finds the answer's own blocks."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(16, 16, ("question", "answer")))
    drained(engine)

    assert engine.submit(10.0, Request(40, 1, ("question", "answer"))).cached_tokens == 32


def test_the_cache_forgets_the_least_recently_used_and_tails_before_heads():
    """Of two chains in three places the older one loses its end first."""
    cache = PrefixCache(3)
    cache.add(["a1", "a2"])
    cache.add(["b1", "b2"])

    assert (cache.match(["a1", "a2"]), cache.match(["b1", "b2"]), len(cache)) == (1, 2, 3)


def test_slow_stretches_what_begins_after_it():
    """Three times slower from one second to the next."""
    engine = Engine(SIMPLE)
    engine.reconfigure(0.0, SIMPLE, 3.0)
    generation = engine.submit(0.0, Request(100, 2))

    assert times(drained(engine), generation) == [6.0, 6.3]


def test_more_slots_let_the_queue_in_at_once():
    """A change of profile does not wait for the next end."""
    engine = Engine(changed(SIMPLE, max_running=1))
    waiting = [engine.submit(0.0, Request(10, 1)) for _ in range(3)][-1]

    engine.reconfigure(0.25, PROFILES["h100-8b"], 1.0)

    assert waiting.started == 0.25


def test_cache_usage_counts_what_running_generations_fill():
    """64 tokens of prompt in 8 blocks of 16 are half."""
    engine = Engine(SIMPLE)
    engine.submit(0.0, Request(64, 1))

    assert engine.cache_usage == 0.5


@pytest.mark.parametrize(
    ("name", "first", "between"),
    [("h100-8b", (0.060, 0.120), (0.010, 0.015)), ("l40s-8b", (0.180, 0.280), (0.025, 0.035))],
)
def test_the_profiles_keep_to_their_published_figures(
    name: str, first: tuple[float, float], between: tuple[float, float]
):
    """256 tokens of prompt, from one running sequence to as many as there may be."""
    profile = PROFILES[name]

    assert first[0] <= profile.prefill_seconds(256) <= first[1]
    assert between[0] <= profile.step_seconds(1)
    assert profile.step_seconds(profile.max_running) <= between[1]


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
        output=st.integers(1, 8),
        patience=st.none() | st.floats(0, 5),
    ),
    max_size=25,
)
profiles = st.builds(
    Profile,
    st.just("any"),
    *[st.sampled_from([0.0, 0.01, 0.5]) for _ in range(4)],
    max_running=st.integers(1, 4),
    cache_blocks=st.integers(1, 8),
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
            tokens.extend(engine.step())
            assert engine.running <= profile.max_running
            assert len(engine.cache) <= profile.cache_blocks

    while agenda:
        agenda.sort(key=lambda item: item[:2])
        at, number, what = agenda.pop(0)
        run(at)
        if isinstance(what, Generation):
            engine.cancel(at, what)
            continue
        blocks = tuple(range((what.prompt + what.output) // 16))
        generations.append(engine.submit(at, Request(what.prompt, what.output, blocks)))
        if what.patience is not None:
            agenda.append((at + what.patience, number, generations[-1]))
    run(float("inf"))
    return generations, tokens, engine


@given(profiles, arrivals)
def test_whatever_comes_tokens_are_conserved_in_order_and_slots_are_freed(
    profile: Profile, plan: list[Arrival]
):
    """Each token once, in order; first come, first started; nothing is left at the end."""
    generations, tokens, engine = played(profile, plan)

    assert [token.at for token in tokens] == sorted(token.at for token in tokens)
    for arrival, generation in zip(plan, generations, strict=True):
        own = [token for token in tokens if token.generation is generation]
        assert [token.number for token in own] == list(range(generation.produced))
        assert generation.ended
        assert arrival.patience is not None or generation.produced == arrival.output
        assert all(token.last == (token.number == arrival.output - 1) for token in own)
    started = [each.started for each in generations if each.started is not None]
    assert started == sorted(started)
    assert (engine.running, engine.waiting) == (0, 0)


@given(profiles, arrivals)
def test_the_same_calls_give_the_same_tokens(profile: Profile, plan: list[Arrival]):
    """Nothing is left to chance."""
    first, second = (played(profile, plan) for _ in range(2))

    assert [token[1:] for token in first[1]] == [token[1:] for token in second[1]]
