"""The server of each request, for methods whose pick depends on the request alone."""

from collections.abc import Iterator, Sequence
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
    from .kernel import Shorts

MOST_TEXTS = 20_000  # requests whose prompts are written out, to hash them as nginx does
HASHED = 200  # characters of a prompt that prompt_prefix hashes


def picks(
    work: "Workload", scenario: Scenario, upstream: Upstream, scope: Variables
) -> "Shorts | None":
    """Return the server number of each request; None for a method that looks at the fleet's state.

    Above 20,000 requests a key that depends on the prompt is represented by the tenant, where its
    system prompt is long enough, else by the conversation.
    """
    if not upstream.record.by_request:
        return None
    by_text = bool(upstream.record.key and scope.definitions)
    if by_text and len(work) <= MOST_TEXTS:
        return _by_text(work, scenario, upstream, scope)
    labels = _labels(work, scenario) if by_text else work.client
    distinct, inverse = np.unique(labels, return_inverse=True)
    arrivals = (
        Arrival(key=b"prompt %d" % label)
        if by_text
        else _arrival(_request(scenario, int(label)), upstream, scope)
        for label in distinct
    )
    return np.array(list(_servers(upstream, arrivals)), np.int32)[inverse]


def _labels(work: "Workload", scenario: Scenario) -> "Shorts":
    shared = 4 * scenario.tenants.system_tokens >= HASHED
    return work.tenant if shared else work.session


def _by_text(
    work: "Workload", scenario: Scenario, upstream: Upstream, scope: Variables
) -> "Shorts":
    """Generate the text of every prompt, and hash it as nginx does."""
    numbers, traced = _numbers(work), scenario.trace is not None
    places: list[int] = []

    def arrivals() -> Iterator[Arrival]:
        for user in workload.plan(scenario).users:
            for planned in user.requests:
                place = planned.number if traced else numbers.get((planned.session, planned.turn))
                if place is None:
                    break
                places.append(place)
                yield _arrival(workload.call(planned), upstream, scope)

    servers = list(_servers(upstream, arrivals()))
    chosen = np.zeros(len(work), np.int32)
    chosen[places] = servers
    return chosen


def _numbers(work: "Workload") -> dict[tuple[int, int], int]:
    pairs = zip(work.session.tolist(), work.turn.tolist(), strict=True)
    return {pair: place for place, pair in enumerate(pairs)}


def _request(scenario: Scenario, client: int) -> Request:
    return Request(workload.PATHS[scenario.api], workload.client_address(client), "POST")


def _arrival(request: Request, upstream: Upstream, scope: Variables) -> Arrival:
    key = variables.evaluate(upstream.key, request, scope) if upstream.key else b""
    return Arrival(key=key, client_ip=request.client_ip)


def _servers(
    upstream: Upstream, arrivals: "Iterator[Arrival] | Sequence[Arrival]"
) -> Iterator[int]:
    nginx = balancer(upstream)
    places = {peer.name: place for place, peer in enumerate(nginx.group.peers)}
    for arrival in arrivals:
        pick = nginx.quick(arrival)
        assert pick is not None  # every server is up and idle
        assert pick.server is not None
        yield places[pick.server]
