"""Predict which server nginx must pick for each request."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from ..errors import UsageError
from ..nginxconf.model import Upstream
from .balancer import Balancer
from .base import Arrival, Group, Method, Pick, Request, group_of
from .hash import Hash
from .hash_consistent import HashConsistent
from .ip_hash import IpHash
from .least_conn import LeastConn
from .least_time import LeastTime
from .random import Draw, Random
from .random_two import RandomTwo
from .round_robin import RoundRobin

__all__ = ["ORACLES", "Arrival", "Balancer", "Draw", "Pick", "balancer", "predict"]

ORACLES: dict[str, Callable[[Group, str, Draw | None], Method]] = {
    "round_robin": lambda group, *_: RoundRobin(group),
    "least_conn": lambda group, _, draw: LeastConn(group, candidates=draw is None),
    "ip_hash": lambda group, *_: IpHash(group),
    "hash": lambda group, *_: Hash(group),
    "hash_consistent": lambda group, *_: HashConsistent(group),
    "random": lambda group, _, draw: Random(group, draw),
    "random_two": lambda group, _, draw: RandomTwo(group, draw),
    "least_time": lambda group, measure, draw: LeastTime(group, measure, candidates=draw is None),
}


def balancer(
    upstream: Upstream,
    addresses: Mapping[str, tuple[str, ...]] | None = None,
    draw: Draw | None = None,
) -> Balancer:
    """An upstream as one fresh nginx worker, or all workers with a `zone`, would balance it.

    `addresses` has the addresses of each server's name, in the resolver's order; a name that is
    not in it counts as one address. `draw` provides the random numbers of random and random_two,
    for example `randrange` of a seeded random.Random. Unknown methods and empty upstreams are a
    LabError.
    """
    if upstream.method not in ORACLES:
        known = ", ".join(ORACLES)
        raise UsageError(f'unknown method "{upstream.method}"', f"one of {known}")
    group = group_of(upstream, addresses or {})
    return Balancer(upstream, group, ORACLES[upstream.method](group, upstream.measure, draw))


def predict(
    upstream: Upstream,
    arrivals: Iterable[Arrival],
    addresses: Mapping[str, tuple[str, ...]] | None = None,
    draw: Draw | None = None,
) -> Iterator[Pick]:
    """Yield a Pick per arrival, in order, as soon as it is known; arrivals are in time order.

    Exact for all methods except random and random_two. With `draw` these are drawn as nginx draws;
    without, `server` is the most probable one (the first on a tie) and `candidates` has all
    probabilities. Without a `zone` this is what one worker does: each worker has its own state, and
    the kernel decides which worker takes a request.
    """
    lab = balancer(upstream, addresses, draw)
    waiting: deque[Request] = deque()
    for arrival in arrivals:
        if not waiting and (pick := lab.quick(arrival)):
            yield pick
            continue
        waiting.append(lab.arrive(arrival))
        while waiting and (pick := waiting[0].pick):
            waiting.popleft()
            yield pick
    lab.finish()
    while waiting and (pick := waiting.popleft().pick):
        yield pick
