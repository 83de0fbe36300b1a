"""Turns: many short calls in one iteration of the event loop, long answers in several."""

import asyncio

import pytest

from nginx_llm_lab.backends.llm.openai.turns import Turns


async def planned_in(turns: Turns, calls: int, tokens: int) -> list[int]:
    """The iteration in which each call was planned; all of them begin in the first."""
    iterations = 0
    planned: list[tuple[int, int]] = []

    async def plan(number: int) -> None:
        await turns.begin()
        planned.append((number, iterations))
        turns.count(tokens)

    tasks = [asyncio.create_task(plan(number)) for number in range(calls)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        iterations += 1
    assert [number for number, _ in planned] == list(range(calls)), "not in their order"
    return [iteration for _, iteration in planned]


@pytest.mark.parametrize(
    ("tokens", "an_iteration"),
    [
        pytest.param(200, 21, id="short calls share an iteration"),
        pytest.param(4096, 1, id="a call that fills it"),
        pytest.param(16_384, 1, id="a call that is longer"),
    ],
)
def test_an_iteration_plans_a_limited_number_of_tokens(tokens: int, an_iteration: int):
    """128 users who come back at once wait for the engine, not for their turns."""
    seen = asyncio.run(planned_in(Turns(), 2 * an_iteration + 1, tokens))

    assert sorted(map(seen.count, set(seen))) == sorted([an_iteration, an_iteration, 1])


def test_the_next_iteration_is_free_again():
    """A call after a pause begins at once."""

    async def later() -> list[int]:
        turns = Turns()
        await planned_in(turns, 1, 16_384)
        await asyncio.sleep(0)
        return await planned_in(turns, 1, 200)

    assert asyncio.run(later()) == [0]
