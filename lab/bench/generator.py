"""How late the open-loop generator sends, with the lab on the same machine."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from ..nginxconf.request import Request
from ..stack.compose import Lab
from ..traffic import sender, workload
from ..traffic.workload import Plan, User
from .figures import Series

RATES = (200, 1_000, 2_000)


def measure(
    lab: Lab, seconds: float, repeats: int, note: Callable[[str], None]
) -> Iterator[Series]:
    """The lateness at each rate, and how many requests failed."""
    for rate in RATES:
        note(f"generator: {rate:,} requests a second")
        late, failed = [], []
        for _ in range(repeats):
            records = sender.run(steady(rate, seconds), lab.door, timeout=30.0)
            delays = sorted(each.sent - each.due for each in records if each.sent is not None)
            late.append(delays[int(len(delays) * 0.99)])
            failed.append(float(sum(bool(each.error) for each in records)))
        subject = f"{rate:,} requests/s"
        yield Series("generator", "lateness p99", subject, "s", tuple(late))
        yield Series("generator", "failed", subject, "requests", tuple(failed))


def steady(rate: float, seconds: float) -> Plan:
    """One GET every 1/rate seconds, each from a different user."""
    total = int(rate * seconds)
    return Plan(_users(rate, total), seconds + 1, total, keepalive=True)


def _users(rate: float, total: int) -> Iterator[User]:
    for number in range(total):
        due = number / rate
        planned = workload.plain(number, Request(f"/bench/{number}"))
        yield User(number, due, iter([replace(planned, due=due)]))
