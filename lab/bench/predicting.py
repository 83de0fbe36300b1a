"""CPU seconds of `lab predict` for every method, by the number of servers."""

import json
import random
import time
from collections.abc import Callable, Iterator
from math import log

from ..nginxconf import upstream
from ..nginxconf.methods import METHODS
from ..nginxconf.model import Upstream
from ..oracle.prediction import predict_lines
from .figures import Series

# without those that read the body, whose cost is that of the body
NAMES = tuple(name for name, method in METHODS.items() if not method.http)
MILLION = 1_000_000


class DiscardedOutput:
    """A file that discards the lines of a prediction."""

    def write(self, data: bytes) -> int:
        """Discard the data; return its length, as files do."""
        return len(data)


def measure(
    servers: tuple[int, ...], requests: int, repeats: int, note: Callable[[str], None]
) -> Iterator[Series]:
    """CPU seconds for a million requests by method and number of servers, and their growth.

    The requests differ in path and client. All lines are read, predicted and printed.
    """
    lines = request_lines(requests)
    for method in NAMES:
        note(f"predicting: {method}")
        spent: dict[int, list[float]] = {number: [] for number in servers}
        for _ in range(repeats):
            for number in servers:
                spent[number].append(for_a_million(group(method, number), lines))
        for number, seconds in spent.items():
            what = f"CPU for 1,000,000 requests, {number:,} servers"
            yield Series("predicting", what, method, "s", tuple(seconds))
        yield from growth(method, spent)


def growth(method: str, spent: dict[int, list[float]]) -> Iterator[Series]:
    """The growth of the time from 100 to 1,000 servers, and its exponent over the whole range."""
    if 100 in spent and 1000 in spent:
        ratios = [many / few for few, many in zip(spent[100], spent[1000], strict=True)]
        what = "CPU of 1,000 servers by that of 100"
        yield Series("predicting", what, method, "ratio", tuple(ratios))
    least, most = min(spent), max(spent)
    if least < most:
        pairs = zip(spent[least], spent[most], strict=True)
        exponents = tuple(log(many / few) / log(most / least) for few, many in pairs)
        yield Series("predicting", "growth exponent", method, "", exponents)


def for_a_million(fleet: Upstream, lines: list[bytes]) -> float:
    """CPU seconds to predict a million requests, extrapolated from these lines.

    Only the time per request is multiplied. Work before the first line is read, such as building a
    ring of 160 points per server, counts once.
    """
    started = time.process_time()
    first_read = started

    def clocked() -> Iterator[bytes]:
        nonlocal first_read
        first_read = time.process_time()
        yield from lines

    predict_lines(fleet, clocked(), DiscardedOutput())
    per_line = (time.process_time() - first_read) / len(lines)
    return first_read - started + per_line * MILLION


def group(method: str, servers: int) -> Upstream:
    """An upstream with a number of servers of weight 1."""
    names = [f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:8000" for n in range(1, servers + 1)]
    return upstream.from_options(method, names)


def request_lines(number: int) -> list[bytes]:
    """Requests for a million paths by many clients, as lines of JSON."""
    rng = random.Random(1)
    return [
        json.dumps(
            {
                "uri": f"/chat/{rng.randrange(MILLION)}",
                "client_ip": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
            }
        ).encode()
        + b"\n"
        for _ in range(number)
    ]
