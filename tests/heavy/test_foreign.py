"""Runs beside a hundred foreign requests a second: no FAIL, verdict and exit code agree."""

import asyncio
import os
import threading
from collections.abc import Iterator

import aiohttp
import pytest

from nginx_llm_lab.experiment import fleet, run
from nginx_llm_lab.nginxconf import methods
from nginx_llm_lab.pytest_plugin import LiveLab
from nginx_llm_lab.traffic.ab import Ab

RATE = 100
RUNS = int(os.environ.get("LAB_FOREIGN_RUNS", "4"))  # of each method
CALL = Ab(200)


class Stranger:
    """A client that sends requests to the front door until it is stopped."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answered = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._send()))

    async def _send(self) -> None:
        async with aiohttp.ClientSession() as session:
            calls: set[asyncio.Task[None]] = set()
            while not self.ended.is_set():
                call = asyncio.create_task(self._get(session))
                calls.add(call)
                call.add_done_callback(calls.discard)
                await asyncio.sleep(1 / RATE)  # the rate of the traffic
            await asyncio.gather(*calls)

    async def _get(self, session: aiohttp.ClientSession) -> None:
        async with session.get(f"{self.url}/foreign") as response:
            await response.read()
        self.answered += 1


@pytest.fixture
def stranger(five: LiveLab) -> Iterator[Stranger]:
    """Foreign traffic as long as a test lasts."""
    one = Stranger(five.lab.front)
    one.thread.start()
    yield one
    one.ended.set()
    one.thread.join()


@pytest.mark.parametrize("method", list(methods.methods()))
def test_foreign_traffic_makes_no_verdict_wrong(
    five: LiveLab, stranger: Stranger, method: str
) -> None:
    """No run is FAIL, and only PASS holds; the foreign requests are counted."""
    choice = fleet.choose(five.lab, method)

    outcomes = [
        run.run(five.lab, choice, CALL, by_ab=False, seed=seed, concurrency=0)
        for seed in range(RUNS)
    ]

    words = [outcome.verdict.word for outcome in outcomes]
    assert "FAIL" not in words, "\n".join(map(str, outcomes))
    assert [outcome.holds for outcome in outcomes] == [word == "PASS" for word in words]
    assert sum(outcome.counts.foreign for outcome in outcomes) > 0
    assert stranger.answered > 0
