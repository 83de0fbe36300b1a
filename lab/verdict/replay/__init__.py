"""Convert nginx's log to the oracle's input: requests and faults, never the answering server."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from itertools import permutations
from typing import NamedTuple, TypeVar

from msgspec import structs

from ...evidence.access_log import Hit
from ...nginxconf import request as of
from ...nginxconf.model import Upstream
from ...nginxconf.request import Evaluator, Request
from ...oracle import retry
from ...oracle.base import Arrival

T = TypeVar("T")

PATH = "the path of $request_uri"  # $uri as far as the log shows it, the key of an alternative
MOST_ORDERS = 5  # servers with `resolve` whose order is still tried out: 120 ways


class Seen(NamedTuple):
    """The server that answered a request, by the log (None: no live upstreams), and all tried."""

    server: str | None
    attempts: tuple[str, ...]


def seen(upstream: Upstream, hit: Hit) -> Seen:
    """The server that answered and those tried; nginx logs the upstream's name if none was left."""
    last = hit.upstream_addr[-1]
    if last == upstream.name and all(server.name != last for server in upstream.servers):
        return Seen(None, hit.upstream_addr[:-1])
    return Seen(last, hit.upstream_addr)


def start(hit: Hit) -> float:
    """When a request began, in seconds."""
    return hit.msec - hit.request_time


def beginning(hit: Hit) -> tuple[int | str, ...]:
    """What requests are sorted by in the order in which they began.

    Of those that began in the same ms, the first to connect stands first. A log is in the order of
    the ends: there requests to one server stand side by side, as its answers come together.
    """
    began = round(start(hit) * 1000)
    return began, hit.connection, hit.connection_requests, hit.request_id, hit.request_uri


def lasted(hit: Hit) -> float:
    """How long the servers were busy with a request, in seconds."""
    times = [time for time in hit.upstream_response_time if time is not None]
    return sum(times) if times else hit.request_time


def value_at(values: tuple[T | None, ...], index: int) -> T | None:
    """One attempt's value; None if the log has none."""
    return values[index] if 0 <= index < len(values) else None


def fault(upstream: Upstream, hit: Hit, index: int) -> str:
    """How an attempt failed, in the words of Arrival.fail; empty if it did not.

    A status that proxy_next_upstream does not list is not a failure.
    """
    status, listed = value_at(hit.upstream_status, index), upstream.next_upstream.conditions
    last = index == len(hit.upstream_addr) - 1
    if status is None:
        return "" if last else "refused"
    if value_at(hit.upstream_header_time, index) is not None:
        return f"http_{status}" if f"http_{status}" in listed else ""
    connected = value_at(hit.upstream_connect_time, index) is not None
    if status == 504:
        return "timeout" if connected else "connect_timeout"
    if status != 502:
        return "" if last else "error"
    once = hit.request_method in retry.ONCE and "non_idempotent" not in listed
    if not connected or (once and not last and reset_at_once(hit, index)):
        return "refused"
    # both are logged alike: a retried status is listed, one that was not retried is not
    bad_header = ("error" in listed, "invalid_header" in listed) == (last, not last)
    return "invalid_header" if bad_header else "error"


def reset_at_once(hit: Hit, index: int) -> bool:
    """Whether an attempt failed in the millisecond in which nginx connected.

    nginx logs the connect time before it sees that the connection was reset, so the request may not
    have been sent.
    """
    failed = (
        value_at(hit.upstream_status, index) == 502
        and value_at(hit.upstream_header_time, index) is None
    )
    connect = value_at(hit.upstream_connect_time, index)
    return failed and connect is not None and connect == value_at(hit.upstream_response_time, index)


def succeeded(hit: Hit) -> bool:
    """Whether the first server answered with a status that is not an error."""
    return len(hit.upstream_addr) == 1 and (value_at(hit.upstream_status, 0) or 0) < 400


def key_of(upstream: Upstream, hit: Hit) -> bytes:
    """The value of the hash key: of a variable in every log, else as it was logged.

    The logged value is that of the claimed key; nginx may hash another.
    """
    if upstream.key == "$binary_remote_addr":
        return packed(hit.remote_addr)
    variables = {
        "$request_uri": hit.request_uri,
        PATH: hit.request_uri.partition("?")[0],
        "$remote_addr": hit.remote_addr,
    }
    return variables.get(upstream.key, hit.hash_key).encode("utf-8", "surrogateescape")


def is_logged_key(upstream: Upstream) -> bool:
    """Whether a key is known only as nginx logged it, not from a variable of every log."""
    return upstream.key not in ("$binary_remote_addr", "$request_uri", PATH, "$remote_addr")


def packed(address: str) -> bytes:
    """The bytes of an address; empty if the log has no address."""
    try:
        return ip_address(address).packed
    except ValueError:
        return b""


def sticky_of(upstream: Upstream, hit: Hit) -> str:
    """The value of the first sticky lookup variable that is not empty: a cookie or an argument."""
    request = Request(hit.request_uri, headers={"Cookie": hit.http_cookie})
    for variable in upstream.sticky.lookups if upstream.sticky else ():
        if value := _lookup(variable)(request):
            return value.decode("utf-8", "surrogateescape")
    return ""


@cache
def _lookup(variable: str) -> Evaluator:
    """The function that evaluates a lookup variable; other variables are not in the log."""
    if variable.lower().startswith("$cookie_"):
        return of.cookie(variable[len("$cookie_") :])
    if variable.lower().startswith("$arg_"):
        find = of.argument(variable[len("$arg_") :])
        return lambda request: find(of.args(request))
    return lambda _request: b""


def arrival(upstream: Upstream, hit: Hit, *, lasting: bool) -> Arrival:
    """The request of a hit, with its failed attempts; `lasting` also sets its duration."""
    tried = seen(upstream, hit).attempts
    faults = tuple(
        (fault(upstream, hit, index), value_at(hit.upstream_response_time, index) or 0.0)
        for index in range(0 if succeeded(hit) else len(tried))
    )
    arrived = Arrival(
        key_of(upstream, hit) if upstream.key else b"",
        hit.remote_addr or "127.0.0.1",
        sticky_of(upstream, hit) if upstream.sticky else "",
        hit.request_method,
        start(hit),
        faults=faults if any(kind for kind, _ in faults) else (),
    )
    if not lasting:
        return arrived
    final = len(tried) - 1
    response = value_at(hit.upstream_response_time, final)
    header = value_at(hit.upstream_header_time, final)
    return structs.replace(
        arrived, duration=hit.request_time if response is None else response, header=header
    )


def orders(upstream: Upstream) -> Iterator[Upstream]:
    """The upstream with its servers in every order that nginx may have them in.

    Servers with `resolve` come after the others, in the order of the DNS response.
    """
    fixed = tuple(server for server in upstream.servers if not server.resolve)
    late = [server for server in upstream.servers if server.resolve]
    if not 1 < len(late) <= MOST_ORDERS:
        yield replace(upstream, servers=(*fixed, *late))
        return
    for order in permutations(late):
        yield replace(upstream, servers=(*fixed, *order))


def unknown(upstream: Upstream, hits: Iterable[Hit]) -> Mapping[str, int]:
    """Servers in the log that the upstream lacks, with the number of their first hit."""
    names = {server.name for server in upstream.servers} | {upstream.name}
    servers: dict[str, int] = {}
    for number, hit in enumerate(hits, 1):
        for name in hit.upstream_addr:
            if name not in names:
                servers.setdefault(name, number)
    return servers
