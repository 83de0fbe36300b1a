"""Picks by load while nginx's workers are delayed, as on a busy machine."""

import heapq
import random
from dataclasses import dataclass, field

import pytest

from nginx_llm_lab.evidence import folder, journal
from nginx_llm_lab.evidence.access_log import Hit
from nginx_llm_lab.evidence.journal import Entry
from nginx_llm_lab.nginxconf.model import Server, Upstream
from nginx_llm_lab.verdict import Verdict, judge
from tests.verdict.hits import hit

SERVERS = 5
NUMBER = 700  # requests
RATE = 0.4  # requests a ms
TURN = 0.3  # ms that a worker needs for what it finds in one turn
CLAIM = Upstream(tuple(Server(str(number)) for number in range(SERVERS)), "least_conn")


@dataclass
class Call:
    """One request; times are in ms."""

    number: int
    server: int = 0
    start: int = 0
    arrived: float = 0.0
    left: float = 0.0


@dataclass
class Worker:
    """A worker: what its clock shows, until when it is in a turn, and until when held up."""

    clock: float = 0.0
    turn_ends: float = 0.0
    held_until: float = 0.0


@dataclass
class Nginx:
    """Two workers, each held up now and then for 20 to 60 ms in the middle of a turn.

    They share a zone. A worker reads its clock at the beginning of each turn.
    """

    held_up: float
    by_turns: bool
    rng: random.Random
    number: int = NUMBER
    workers: tuple[Worker, Worker] = field(default_factory=lambda: (Worker(), Worker()))
    open: list[int] = field(default_factory=lambda: [0] * SERVERS)
    hits: list[Hit] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    events: list[tuple[float, int, Worker, Call]] = field(default_factory=list)
    serial: int = 0

    def serve(self) -> None:
        """Serve all requests, which come at random."""
        moment = 1000.0
        for number in range(self.number):
            moment += self.rng.expovariate(RATE)
            self.later(moment, self.rng.choice(self.workers), Call(number))
        while self.events:
            now, _, worker, call = heapq.heappop(self.events)
            if now < worker.held_until or (now > worker.turn_ends and self.is_held_up(worker, now)):
                self.later(worker.held_until, worker, call)
            elif call.left:
                self.release(worker, call)
            else:
                self.pick(now, worker, call)

    def later(self, moment: float, worker: Worker, call: Call) -> None:
        """Put an event on the heap."""
        self.serial += 1
        heapq.heappush(self.events, (moment, self.serial, worker, call))

    def is_held_up(self, worker: Worker, now: float) -> bool:
        """Begin an iteration; return whether the worker is delayed in it."""
        worker.clock, worker.turn_ends = now, now + TURN
        if self.rng.random() >= self.held_up:
            return False
        worker.held_until = now + self.rng.uniform(20, 60)
        worker.turn_ends = worker.held_until
        return True

    def pick(self, now: float, worker: Worker, call: Call) -> None:
        """Pick a server: by turns, or one of those with the fewest open requests."""
        fewest = [number for number in range(SERVERS) if self.open[number] == min(self.open)]
        call.server = call.number % SERVERS if self.by_turns else self.rng.choice(fewest)
        call.start = int(worker.clock)
        self.open[call.server] += 1
        call.arrived = now + self.rng.expovariate(4)
        call.left = call.arrived + self.rng.choice([2.0, 3.0, 15.0, 150.0])
        self.later(call.left + self.rng.expovariate(4), worker, call)

    def release(self, worker: Worker, call: Call) -> None:
        """Log a request that has its answer."""
        self.open[call.server] -= 1
        end, name = int(worker.clock), f"id{call.number}"
        lasted = (end - call.start) / 1000
        self.hits.append(
            Hit(
                (str(call.server),),
                200,
                end / 1000,
                lasted,
                name,
                pid=self.workers.index(worker),
                upstream_status=(200,),
                upstream_connect_time=(0.0,),
                upstream_header_time=(lasted,),
                upstream_response_time=(lasted,),
            )
        )
        self.entries.append(
            Entry(name, str(call.server), start=call.arrived / 1000, t=call.left / 1000)
        )


def verdict_on(
    seed: int, held_up: float, *, by_turns: bool = False, number: int = NUMBER
) -> Verdict:
    """The verdict on a stretch of a log, as after a fault: least_conn is claimed."""
    nginx = Nginx(held_up, by_turns, random.Random(seed), number)
    nginx.serve()
    return judge(
        CLAIM,
        nginx.hits,
        sequential=False,
        fresh=False,
        clock=folder.clock_lag(nginx.hits, nginx.entries),
        since=1.3,
        served=journal.served(nginx.entries),
    )


@pytest.mark.parametrize("held_up", [0.0, 0.001, 0.002, 0.004])
def test_delayed_workers_make_no_right_nginx_fail(held_up: float) -> None:
    """One such turn makes several picks look wrong, as in the runs of seeds 112 and 138."""
    assert {str(verdict_on(seed, held_up).word) for seed in range(110, 140)} == {"PASS"}


@pytest.mark.parametrize("held_up", [0.0, 0.001, 0.02])
def test_delayed_workers_hide_no_wrong_nginx(held_up: float) -> None:
    """Turns without regard to the load."""
    words = {str(verdict_on(seed, held_up, by_turns=True).word) for seed in range(10)}

    assert words == {"FAIL"}


def test_enough_decided_picks_pass_whatever_their_share() -> None:
    """One turn in twenty is delayed: of 7,000 picks less than a quarter can be decided."""
    verdict = verdict_on(1, 0.05, number=7000)

    assert verdict.word == "PASS", verdict
    assert verdict.decided is not None
    assert verdict.decided < 0.25
    assert verdict_on(1, 0.05, by_turns=True, number=7000).word == "FAIL"


def test_a_release_may_be_later_than_any_pick_that_a_journal_shows() -> None:
    """One worker logs nine ends at 100 ms and is then held up until 400; the other picks on."""
    claim = Upstream((Server("a"), Server("b")), "least_conn")
    held_up = [hit("b", 50 + number, 100, pid=1) for number in range(9)]
    picks = [hit("a", 200 + 10 * number, 700, pid=2) for number in range(8)]
    log = [*held_up, *picks, hit("b", 400, 450, pid=1)]

    def word(clock: float) -> str:
        return judge(claim, log, sequential=False, fresh=False, since=0.15, clock=clock).word

    assert word(clock=100) == "UNSURE"
    assert word(clock=0) == "FAIL"
