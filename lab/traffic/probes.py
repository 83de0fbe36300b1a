"""The requests that test a method: they vary the fields on which its picks depend."""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from msgspec import structs

from ..nginxconf import methods
from ..nginxconf.methods import Varied
from ..nginxconf.request import FRAMING, Request

MANY = 20  # requests in flight, where the load decides


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests and their concurrency; 1 sends them strictly one after the other.

    Requests with the same session name return the cookies that earlier responses set.
    """

    requests: tuple[Request, ...]
    concurrency: int
    sessions: tuple[str, ...] = ()


def plan(method: str, key: str, count: int, seed: int, concurrency: int = 0) -> Plan:
    """`count` requests that test `method`; the same for the same seed.

    Methods that pick by the request get many addresses, keys, prompts or sessions, sequentially.
    Methods that pick by the load get concurrent requests of mixed duration; with a concurrency of 1
    there is no load, so responses take no time.
    """
    rng = random.Random(seed)
    record = methods.method(method)
    varied = Varied.NOTHING if record.by_load and concurrency == 1 else record.varied
    make = _maker(varied, key, rng)
    requests = tuple(make(number) for number in range(count))
    visitors = range(count) if varied is Varied.SESSIONS else ()
    sessions = tuple(_visitor(number, rng) for number in visitors)
    return Plan(requests, concurrency or (MANY if record.by_load else 1), sessions)


def ab_cannot_test(method: str) -> bool:
    """Whether one ab run cannot test the method: it has one address, one key, equal durations."""
    return methods.method(method).varied is not Varied.NOTHING


def _maker(varied: Varied, key: str, rng: random.Random) -> Callable[[int], Request]:
    makers: dict[Varied, Callable[[int], Request]] = {
        Varied.ADDRESSES: lambda _: Request(client_ip=address(rng)),
        Varied.PROMPTS: lambda _: _prompt(rng),
        Varied.DURATIONS: lambda _: _lasting(rng),
    }
    return makers.get(varied, lambda number: request_with_key(key, number, rng))


def request_with_key(key: str, number: int, rng: random.Random) -> Request:
    """A request in which every variable of a hash key has a distinct value."""
    value = f"{rng.getrandbits(32):08x}"
    request = Request(uri=f"/page/{number}-{value}", client_ip=address(rng))
    headers: dict[str, str] = {}
    for name in re.findall(r"\$\{?(\w+)", key):
        mark = "&" if "?" in request.uri else "?"
        if name.startswith("arg_"):
            request = structs.replace(request, uri=f"{request.uri}{mark}{name[4:]}={value}")
        elif name in ("request_uri", "uri"):  # only arguments make the two differ
            request = structs.replace(request, uri=f"{request.uri}{mark}turn={number}")
        elif name.startswith("http_") and name not in FRAMING:
            headers[name[5:].replace("_", "-")] = value
        elif name.startswith("cookie_"):
            others = f"{headers['Cookie']}; " if "Cookie" in headers else ""
            headers["Cookie"] = f"{others}{name[7:]}={value}"
        elif name == "request_body":
            request = structs.replace(
                request, method="POST", uri="/completions", body=value.encode()
            )
            headers["Content-Type"] = "text/plain"
    return structs.replace(request, headers=headers)


def address(rng: random.Random) -> str:
    """A client address; one in five is IPv6."""
    if rng.random() < 0.2:
        return str(IPv6Address(0x2001_0DB8 << 96 | rng.getrandbits(96)))
    return str(IPv4Address(rng.randrange(0x0100_0000, 0xDF00_0000)))


def _visitor(number: int, rng: random.Random) -> str:
    """One of many visitors, who return with the cookie that they were given."""
    return f"visitor-{number if number < 20 else rng.randrange(60)}"


def _prompt(rng: random.Random) -> Request:
    """A chat whose first 200 characters are one of 40 system prompts."""
    system = f"You are assistant number {rng.randrange(40)}. ".ljust(220, "x")
    body = json.dumps({"message": f"{system} question {rng.getrandbits(32)}"}).encode()
    return Request(
        "/chat",
        address(rng),
        method="POST",
        headers={"Content-Type": "application/json"},
        body=body,
    )


def _lasting(rng: random.Random) -> Request:
    """A request whose response takes 5 ms to 0.4 s; most are short."""
    seconds = min(0.4, 0.005 + rng.expovariate(1 / 0.06))
    return Request(client_ip=address(rng), headers={"X-Lab-Duration": f"{seconds:.3f}"})
