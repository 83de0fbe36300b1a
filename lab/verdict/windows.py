"""Bounds of the load at each pick, from the log's milliseconds.

A pick lies between the start of its request and the moment that leaves its servers the time that
they took; a release between that time after the start and the end. `slack` widens both, in ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evidence.access_log import Hit
from ..nginxconf.model import Upstream
from ..oracle.base import LONG_AGO
from ..oracle.least_time import averaged, clustered
from . import replay

Array = NDArray[Any]

GRAIN = 2  # ms by which nginx's times of one request differ by rounding alone


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """When each request of a log was picked and released, earliest and latest, in ms.

    `server` is the index of the one that answered, in the order of the upstream's lines.
    """

    server: Array
    pick_from: Array
    pick_to: Array
    free_from: Array
    free_to: Array
    header: Array
    response: Array

    def widened(self, slack: float) -> "Windows":
        """The same with every bound moved apart by `slack`."""
        return Windows(
            self.server,
            self.pick_from - slack,
            self.pick_to + slack,
            self.free_from - slack,
            self.free_to + slack,
            self.header,
            self.response,
        )


def windows(upstream: Upstream, hits: Sequence[Hit]) -> Windows:
    """The windows of hits that a server answered, whose names are all different.

    After a retry the last pick may have been at any time of the request.
    """
    index = {server.name: number for number, server in enumerate(upstream.servers)}
    ends = np.array([hit.msec * 1000 for hit in hits]).round()
    starts = np.array([replay.start(hit) * 1000 for hit in hits]).round()
    lasted = np.array([replay.lasted(hit) * 1000 for hit in hits]).round()
    headers = [replay.at(hit.upstream_header_time, len(hit.upstream_addr) - 1) for hit in hits]
    responses = [replay.at(hit.upstream_response_time, len(hit.upstream_addr) - 1) for hit in hits]
    retried = np.array([len(hit.upstream_addr) > 1 for hit in hits])
    apart = ends - starts - lasted > GRAIN
    return Windows(
        np.array([index[hit.upstream_addr[-1]] for hit in hits]),
        starts,
        np.where(retried, ends, np.where(apart, np.maximum(starts, ends - lasted), starts)),
        np.where(apart, np.minimum(ends, starts + lasted), ends),
        ends,
        milliseconds(headers, lasted),
        milliseconds(responses, lasted),
    )


def milliseconds(values: Sequence[float | None], instead: Array) -> Array:
    """Logged seconds as whole ms, another value where nothing was logged."""
    known = np.array([np.nan if value is None else value * 1000 for value in values]).round()
    return np.where(np.isnan(known), instead, known)


def open_requests(seen: Windows, servers: int) -> tuple[Array, Array]:
    """How many other requests each server had open at each pick: at least, at most."""
    least = np.zeros((len(seen.server), servers))
    most = np.zeros((len(seen.server), servers))
    for number in range(servers):
        own = seen.server == number
        begun = np.searchsorted(np.sort(seen.pick_to[own]), seen.pick_from, "left")
        ended = np.searchsorted(np.sort(seen.free_from[own]), seen.pick_to, "right")
        # a request's own end may fall into its own pick's window
        ended = ended - (own & (seen.free_from <= seen.pick_to))
        may_have_begun = np.searchsorted(np.sort(seen.pick_from[own]), seen.pick_to, "right")
        surely_ended = np.searchsorted(np.sort(seen.free_to[own]), seen.pick_from, "left")
        least[:, number] = np.maximum(begun - ended, 0)
        most[:, number] = may_have_begun - surely_ended - own
    return least, most


def estimates(upstream: Upstream, seen: Windows, load: tuple[Array, Array]) -> tuple[Array, Array]:
    """least_time's estimate of each server at each pick, in ms: at least, at most."""
    times = seen.response if "last_byte" in upstream.measure else seen.header
    least, most = np.zeros_like(load[0]), np.zeros_like(load[1])
    for number, server in enumerate(upstream.servers):
        own = np.flatnonzero(seen.server == number)
        low, high = averages(seen, own, times)
        idle = halvings(seen, own, server.fail_timeout)
        shortest = np.vectorize(clustered, otypes=[float])(low >> idle[1])
        longest = np.vectorize(clustered, otypes=[float])(high >> idle[0])
        least[:, number] = shortest * (1 + load[0][:, number])
        most[:, number] = longest * (1 + load[1][:, number])
    return least, most


def averages(seen: Windows, own: Array, times: Array) -> tuple[Array, Array]:
    """The bounds of a server's moving average at every pick, from its own answers' times.

    One ms is left for the order of answers that came in the same ms.
    """
    order = own[np.argsort(seen.free_to[own], kind="stable")]
    average, series = 0, [0]
    for sample in times[order].astype(int).tolist():
        average = averaged(average, sample)
        series.append(average)
    history = np.array(series)
    first = np.searchsorted(np.sort(seen.free_to[own]), seen.pick_from, "left")
    last = np.searchsorted(np.sort(seen.free_from[own]), seen.pick_to, "right")
    low, high = history[first].copy(), history[first].copy()
    for step in range(1, int((last - first).max(initial=0)) + 1):
        value = history[np.minimum(first + step, last)]
        low, high = np.minimum(low, value), np.maximum(high, value)
    known = first > 0
    return np.where(known, np.maximum(low - 1, 0), 0), high + (last > 0)


def halvings(seen: Windows, own: Array, fail_timeout: int) -> tuple[Array, Array]:
    """How often a server's time was halved at each pick: at least, at most.

    nginx notes a pick of a server only when it noted none for more than fail_timeout seconds.
    """
    checked, noted = LONG_AGO, [LONG_AGO]
    for second in np.sort(seen.pick_from[own] // 1000).astype(int).tolist():
        checked = second if second - checked > fail_timeout else checked
        noted.append(checked)
    before = np.searchsorted(np.sort(seen.pick_from[own]), seen.pick_from, "left")
    idle = seen.pick_from // 1000 - np.array(noted)[before]
    low, high = idle - 1, idle + 1
    times = [np.where(it > fail_timeout, it // (fail_timeout + 1), 0) for it in (low, high)]
    return np.clip(times[0], 0, 62).astype(int), np.clip(times[1], 0, 62).astype(int)
