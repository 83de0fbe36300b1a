"""How late the open-loop generator sends, with the lab on the same machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..nginxconf.request import Request
from ..stack.compose import Lab
from ..traffic import sender, workload
from ..traffic.workload import Plan, User
from .figures import Series

RATES = (200, 1_000, 2_000)
MOST_LATE = 0.010  # seconds of p99 lateness up to which a rate counts as kept
FASTEST = 16_000
STEP = 1.25  # factor between two rates in the search for the highest one


def measure(
    lab: Lab, seconds: float, repeats: int, note: Callable[[str], None]
) -> Iterator[Series]:
    """The lateness at each rate, the failed requests, and the highest sustained rate."""
    for rate in RATES:
        note(f"generator: {rate:,} requests/s")
        turns = [one_turn(lab, rate, seconds) for _ in range(repeats)]
        subject = f"{rate:,} requests/s"
        late = tuple(turn.late for turn in turns)
        yield Series("generator", "lateness p99", subject, "s", late)
        failed = tuple(float(turn.failed) for turn in turns)
        yield Series("generator", "failed", subject, "requests", failed)
    note("generator: highest rate")
    highest = tuple(highest_rate(lab, seconds / 2) for _ in range(repeats))
    yield Series(
        "generator", "highest rate", f"lateness p99 up to {MOST_LATE * 1e3:g} ms", "1/s", highest
    )


@dataclass(frozen=True, slots=True)
class Turn:
    """One open loop: the lateness (p99, seconds) and how many requests failed."""

    late: float
    failed: int


def one_turn(lab: Lab, rate: float, seconds: float, timeout: float = 30.0) -> Turn:
    """Send at a rate; measure how late."""
    records = sender.run(steady(rate, seconds), lab.door, timeout=timeout)
    delays = sorted(record.sent - record.due for record in records if record.sent is not None)
    return Turn(delays[int(len(delays) * 0.99)], sum(bool(record.error) for record in records))


def highest_rate(lab: Lab, seconds: float) -> float:
    """The highest sustained rate; 0 if none. It rises by STEP until requests are late or fail."""
    kept, rate = 0.0, float(RATES[1])
    while rate <= FASTEST:
        tried = one_turn(lab, rate, seconds, timeout=5.0)
        if tried.late > MOST_LATE or tried.failed:
            break
        kept, rate = rate, rate * STEP
    return kept


def steady(rate: float, seconds: float) -> Plan:
    """One GET every 1/rate seconds, each from a different user."""
    total = int(rate * seconds)
    return Plan(_users(rate, total), seconds + 1, total, keepalive=True)


def _users(rate: float, total: int) -> Iterator[User]:
    for number in range(total):
        due = number / rate
        planned = workload.plain(number, Request(f"/bench/{number}"))
        yield User(number, due, iter([replace(planned, due=due)]))
