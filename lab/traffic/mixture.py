"""An open-loop load of GETs, the article's POSTs and LLM streams, without a fixed end."""

import json
import random
from collections.abc import Callable, Iterator
from itertools import count

from ..nginxconf.request import Request
from .workload import Plan, Planned, User, plain, streamed

_JSON = {"Content-Type": "application/json"}


def mixture(seed: int, rate: Callable[[], float], is_over: Callable[[], bool]) -> Plan:
    """`rate()` requests a second until `is_over`: 60 % GET, 30 % POST, 10 % streams of 20 tokens.

    The rate may change between two requests. Each request has a different client address; one in
    five GETs and POSTs takes up to 0.1 s. The same seed sends the same requests.
    """
    return Plan(_users(random.Random(seed), rate, is_over), None, None)


def _users(
    rng: random.Random, rate: Callable[[], float], is_over: Callable[[], bool]
) -> Iterator[User]:
    """A user for each request, due 1 / `rate()` seconds after the user before."""
    due = 0.0
    for number in count():
        if is_over():
            return
        yield User(number, due, iter((_random_request(rng, number),)))
        due += 1 / rate()


def _random_request(rng: random.Random, number: int) -> Planned:
    client = f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
    duration = {"X-Lab-Duration": f"{rng.uniform(0.01, 0.1):.3f}"} if rng.random() < 0.2 else {}
    kind = rng.choices(("GET", "POST", "stream"), (6, 3, 1))[0]
    if kind == "stream":
        message = {"role": "user", "content": "soak " * rng.randrange(1, 20)}
        return streamed(number, (message,), 20, client)
    if kind == "GET":
        return plain(number, Request(f"/soak/{rng.randrange(1000)}", client, headers=duration))
    body = json.dumps({"message": f"soak {number}"}).encode()
    return plain(number, Request("/chat", client, "POST", {**_JSON, **duration}, body))
