"""The engine in real time."""

import asyncio

from nginx_llm_lab.backends.llm.engine import Engine, Request, Token
from nginx_llm_lab.backends.llm.profiles import Profile
from nginx_llm_lab.backends.llm.runner import Runner

STEADY = Profile("steady", 0.5, max_num_seqs=1)


class Clock:
    """A clock that changes only when it is set."""

    now = 100.0

    def __call__(self) -> float:
        """Its reading."""
        return self.now


async def _scaled() -> tuple[float, list[float]]:
    clock = Clock()
    runner = Runner(Engine(STEADY), 2.0, clock)
    box = runner.submit([Request(1, 3)], clock.now)
    clock.now += 1.0
    runner.reconfigure(STEADY, 1.0, 4.0)
    tokens = await box.take()
    return runner.model_time(clock.now + 1.0), [token.at for token in tokens]


def test_time_runs_as_fast_as_the_scale_says():
    """Two model seconds in a real one, then four; no jump in between."""
    later, due = asyncio.run(_scaled())

    assert later == 6.0
    assert due == [0.5, 1.0, 1.5]


async def _whole(choices: int) -> list[tuple[int, int]]:
    runner = Runner(Engine(Profile("instant")))
    box = runner.submit([Request(1, 3000, tag=tag) for tag in range(choices)], 0.0)
    seen = []
    while tokens := await box.take():
        seen += [(token.generation.request.tag, token.number) for token in tokens]
    return seen


def test_a_mailbox_ends_after_every_generation_of_its_call():
    """Thousands of tokens that are all due at once, too."""
    seen = asyncio.run(_whole(2))

    assert len(seen) == 6000
    assert [number for tag, number in seen if tag == 1] == list(range(3000))


async def _cancelled() -> tuple[list[object], int, int]:
    clock = Clock()
    runner = Runner(Engine(STEADY), 1.0, clock)
    first, _second = (runner.submit([Request(1, 3)], clock.now) for _ in range(2))
    waiting = asyncio.create_task(first.take())
    await asyncio.sleep(0)
    runner.cancel(first)
    # the step under way ends, and the next one has room
    clock.now += 0.6
    runner.cancel(first)
    return list(await waiting), runner.engine.running, runner.engine.waiting


def test_cancelling_wakes_the_reader_and_admits_the_next_request():
    """It gets no tokens, and its slot is free."""
    assert asyncio.run(_cancelled()) == ([], 1, 0)


async def _order() -> list[str]:
    """Who got a token, in order: one call has begun when the other one's first token is due."""
    clock, order = Clock(), []
    runner = Runner(Engine(Profile("pair", 0.5, max_num_seqs=2)), 1.0, clock)
    old = runner.submit([Request(1, 9)], clock.now)
    clock.now += 0.6  # the old call's first token, in a step without the new one
    runner.reconfigure(runner.engine.profile, 1.0, 1.0)
    await old.take()

    def sink(token: Token) -> bool:
        order.append(f"old {token.number}")
        return True

    old.sink = sink
    waiting = asyncio.create_task(old.take())
    await asyncio.sleep(0)
    new = runner.submit([Request(1, 9)], clock.now)

    async def read() -> None:
        (token,) = await new.take()
        order.append(f"new {token.number}")

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    clock.now += 1.0
    runner.reconfigure(runner.engine.profile, 1.0, 1.0)
    await reading
    await asyncio.sleep(0)
    runner.cancel(old)
    await waiting
    return order


def test_a_first_token_is_read_before_others_of_its_step_are_delivered() -> None:
    """It does not wait until a hundred others are written."""
    assert asyncio.run(_order()) == ["old 1", "new 0", "old 2"]


async def _cancelled_between() -> tuple[list[object], list[int]]:
    clock = Clock()
    runner = Runner(Engine(Profile("three", 0.5, max_num_seqs=3)), 1.0, clock)
    gone, other = (runner.submit([Request(1, 9)], clock.now) for _ in range(2))
    clock.now += 1.1  # the second call joins the second step
    new = runner.submit([Request(1, 9)], clock.now)
    await gone.take()
    await other.take()
    clock.now += 1.0
    runner.reconfigure(runner.engine.profile, 1.0, 1.0)  # the new first token is delivered
    runner.cancel(gone)
    await new.take()
    await asyncio.sleep(0)
    seen = [token.number for token in await other.take()]
    return list(await gone.take()), seen


def test_a_call_cancelled_before_the_rest_of_a_step_gets_none_of_it() -> None:
    """The rest of the step is delivered to the others."""
    assert asyncio.run(_cancelled_between()) == ([], [1, 2])
