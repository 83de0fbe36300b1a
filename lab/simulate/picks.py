"""Compute the server of each request for the methods that decide by the request alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..nginxconf import variables
from ..nginxconf.model import Upstream
from ..nginxconf.request import Request
from ..nginxconf.variables import Variables
from ..oracle import Arrival, balancer
from ..traffic import workload
from ..traffic.scenario import Scenario

if TYPE_CHECKING:
    from .jobs import Workload
    from .kernel import Backends, Ints, Shorts

MOST_TEXTS = 20_000  # requests whose prompts are generated to hash them as nginx does
HASHED = 200  # characters of a prompt that prompt_prefix hashes


def picks(
    work: "Workload", scenario: Scenario, upstream: Upstream, scope: Variables
) -> "Backends | None":
    """Return the number of each request's server; None if the method does not decide by requests.

    Hashing real prompts is slow. Above 20,000 requests, a key that depends on the prompt is
    replaced by the tenant's number if its system prompt is as long as what is hashed, else by the
    conversation's; in a trace, by the number of its first block.
    """
    if not upstream.record.by_request:
        return None
    by_text = bool(upstream.record.key and scope.definitions)
    if by_text and len(work) <= MOST_TEXTS:
        return _by_text(work, scenario, upstream, scope)
    labels = _labels(work, scenario) if by_text else work.client
    distinct = _distinct(labels)
    arrivals = (
        Arrival(key=b"prompt %d" % label)
        if by_text
        else _arrival(_request(scenario, label), upstream, scope)
        for label in map(int, distinct)  # no list: there may be 10 million
    )
    server = np.zeros(int(labels.max(initial=0)) + 1, np.int16)
    server[distinct] = np.fromiter(_servers(upstream, arrivals), np.int16, len(distinct))
    return server[labels]


def _distinct(labels: "Shorts") -> "Ints":
    """Return the labels that occur, in order.

    Labels are numbers from 0 without large gaps, so a mark for each is smaller than a sort.
    """
    occurs = np.zeros(int(labels.max(initial=0)) + 1, bool)
    occurs[labels] = True
    return np.flatnonzero(occurs)


def _labels(work: "Workload", scenario: Scenario) -> "Shorts":
    """The number that replaces each prompt: of its tenant, first block or conversation."""
    # one block of a trace is longer than what is hashed
    shared = scenario.trace is not None or 4 * scenario.tenants.system_tokens >= HASHED
    return work.tenant if shared else work.session


def _by_text(
    work: "Workload", scenario: Scenario, upstream: Upstream, scope: Variables
) -> "Backends":
    """Generate the text of every prompt, and hash it as nginx does."""
    by_turn, traced = _numbers(work), scenario.trace is not None
    numbers: list[int] = []

    def arrivals() -> Iterator[Arrival]:
        for user in workload.plan(scenario).users:
            for planned in user.requests:
                number = planned.number if traced else by_turn.get((planned.session, planned.turn))
                if number is None:
                    break
                numbers.append(number)
                yield _arrival(workload.call(planned), upstream, scope)

    servers = list(_servers(upstream, arrivals()))
    picked = np.zeros(len(work), np.int16)
    picked[numbers] = servers
    return picked


def _numbers(work: "Workload") -> dict[tuple[int, int], int]:
    """The number of each request in the workload, by its session and turn."""
    turns = zip(work.session.tolist(), work.turn.tolist(), strict=True)
    return {turn: number for number, turn in enumerate(turns)}


def _request(scenario: Scenario, client: int) -> Request:
    return Request(workload.PATHS[scenario.api], workload.client_address(client), "POST")


def _arrival(request: Request, upstream: Upstream, scope: Variables) -> Arrival:
    if not upstream.key:
        return Arrival(client_ip=request.client_ip)
    key = variables.compile_text(upstream.key, scope, upstream.where)(request)
    return Arrival(key=key, client_ip=request.client_ip)


def _servers(upstream: Upstream, arrivals: Iterator[Arrival]) -> Iterator[int]:
    """Yield the number of the server that nginx picks for each arrival."""
    nginx = balancer(upstream)
    numbers = {peer.name: number for number, peer in enumerate(nginx.group.peers)}
    for arrival in arrivals:
        pick = nginx.quick(arrival)
        assert pick is not None  # every server is up and idle
        assert pick.server is not None
        yield numbers[pick.server]
