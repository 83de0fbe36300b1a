"""Bounds of the load at each pick, from the log's milliseconds.

Let d be the time that the servers needed for a request. Its pick is between its start and d before
its end; its release is between d after its start and its end. `slack` widens both, in ms. A
backend's journal, on the same clock, bounds them further: nginx picked a server before the request
arrived there, and released it after the response had been sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...evidence.access_log import Hit
from ...nginxconf.model import Upstream
from ...oracle.base import LONG_AGO
from ...oracle.least_time import LONGEST, STEP, averaged
from .. import replay

Array = NDArray[Any]
Served = Mapping[str, tuple[float, float]]  # arrival and end at the backend, in s, by request id

EXACT = 0.49  # ms within which times in a log keep their order where they differ
WIDE = 2.0  # ms that the cached clocks of nginx's workers may lag and differ on a quiet machine
GRAIN = 2  # ms by which nginx's times of one request differ by rounding alone
CUT = 0.5  # ms of a time that nginx's log leaves out, on average
LEFT = 0.2  # ms within which a backend records that it has sent a response
NOT_SERVED: Served = {}


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The earliest and latest pick and release of each request of a log, in ms.

    `server` is the index of the one that answered, in the order of the upstream's lines. `begun`
    and `ended` are when a request arrived at its backend and left it; infinite without a journal.
    `after_pick` and `after_free` are when its worker next read its clock, from `next_turns`.
    `failed` marks the requests that the first server did not simply answer.
    """

    server: Array
    start: Array
    failed: Array
    pick_from: Array
    pick_to: Array
    free_from: Array
    free_to: Array
    header: Array
    response: Array
    begun: Array
    ended: Array
    after_pick: Array
    after_free: Array

    def part(self, rows: Array, servers: Array) -> "Windows":
        """Some of the requests, with `servers` as the indices of those that answered them."""
        parts = {line.name: getattr(self, line.name)[rows] for line in fields(self)}
        return Windows(**parts | {"server": servers})

    def widened(self, slack: float, stall: float = 0.0) -> "Windows":
        """The same with all bounds widened by `slack`, within the limits of the journals.

        nginx's clock may lag but is never ahead: no pick was before its request's logged start. A
        delayed backend records late that a response was sent. A worker that was delayed by at most
        `stall` ms logs the earlier time until its next iteration.
        """
        early = np.where(np.isfinite(self.begun), min(slack, CUT), slack)
        pick_from = self.pick_from - early
        pick_to = np.clip(self.after_pick, self.pick_to, self.pick_to + stall) + slack
        free_to = np.clip(self.after_free, self.free_to, self.free_to + stall) + slack
        return replace(
            self,
            pick_from=pick_from,
            pick_to=np.maximum(pick_from, np.minimum(pick_to, self.begun)),
            free_from=np.minimum(
                self.free_to + slack, np.maximum(self.free_from, self.ended) - slack
            ),
            free_to=free_to,
        )


def windows(upstream: Upstream, hits: Sequence[Hit], served: Served = NOT_SERVED) -> Windows:
    """The windows of hits that a server answered, whose names are all different.

    After a retry the last pick may have been at any time during the request.
    """
    index = {server.name: number for number, server in enumerate(upstream.servers)}
    ends = np.array([hit.msec * 1000 for hit in hits]).round()
    starts = np.array([replay.start(hit) * 1000 for hit in hits]).round()
    lasted = np.array([replay.lasted(hit) * 1000 for hit in hits]).round()
    headers = [
        replay.value_at(hit.upstream_header_time, len(hit.upstream_addr) - 1) for hit in hits
    ]
    responses = [
        replay.value_at(hit.upstream_response_time, len(hit.upstream_addr) - 1) for hit in hits
    ]
    retried = np.array([len(hit.upstream_addr) > 1 for hit in hits])
    apart = ends - starts - lasted > GRAIN
    pick_to = np.where(retried, ends, np.where(apart, np.maximum(starts, ends - lasted), starts))
    pids = np.array([hit.pid for hit in hits])
    return Windows(
        np.array([index[hit.upstream_addr[-1]] for hit in hits]),
        starts,
        np.array([not replay.succeeded(hit) for hit in hits], dtype=bool),
        starts,
        pick_to,
        np.where(apart, np.minimum(ends, starts + lasted), ends),
        ends,
        milliseconds(headers, lasted),
        milliseconds(responses, lasted),
        *at_backends(hits, served),
        next_turns(pids, starts, ends, pick_to),
        next_turns(pids, starts, ends, ends),
    )


def next_turns(pids: Array, starts: Array, ends: Array, moments: Array) -> Array:
    """The next time that the same worker logged after each of its times; infinite at the end.

    A worker reads its clock once per iteration: what it logged with one time, it did before the
    next.
    """
    later = np.full(len(moments), np.inf)
    for pid in np.unique(pids):
        mine = pids == pid
        times = np.append(np.unique(np.concatenate([starts[mine], ends[mine]])), np.inf)
        later[mine] = times[np.searchsorted(times, moments[mine], "right")]
    return later


def at_backends(hits: Sequence[Hit], served: Served) -> tuple[Array, Array]:
    """The latest possible pick and the earliest possible release of each request, by its backend.

    In ms of nginx's log, whose times are on average CUT before the event.
    """
    if not served:
        return np.full(len(hits), np.inf), np.full(len(hits), -np.inf)
    spans = [served.get(hit.request_id) if len(hit.upstream_addr) == 1 else None for hit in hits]
    known = np.array([span or (np.inf, -np.inf) for span in spans]).reshape(-1, 2) * 1000
    return known[:, 0] - CUT, known[:, 1] - CUT - LEFT


def milliseconds(values: Sequence[float | None], instead: Array) -> Array:
    """Logged seconds as whole ms, `instead` if nothing was logged."""
    known = np.array([np.nan if value is None else value * 1000 for value in values]).round()
    return np.where(np.isnan(known), instead, known)


def open_requests(seen: Windows, servers: int) -> tuple[Array, Array]:
    """The minimum and maximum number of other requests on each server at each pick."""
    least = np.zeros((len(seen.server), servers))
    most = np.zeros((len(seen.server), servers))
    for number in range(servers):
        picked = seen.server == number
        begun = np.searchsorted(np.sort(seen.pick_to[picked]), seen.pick_from, "left")
        ended = np.searchsorted(np.sort(seen.free_from[picked]), seen.pick_to, "right")
        # a request's own end may fall into its own pick's window
        ended = ended - (picked & (seen.free_from <= seen.pick_to))
        may_have_begun = np.searchsorted(np.sort(seen.pick_from[picked]), seen.pick_to, "right")
        surely_ended = np.searchsorted(np.sort(seen.free_to[picked]), seen.pick_from, "left")
        least[:, number] = np.maximum(begun - ended, 0)
        most[:, number] = may_have_begun - surely_ended - picked
    return least, most


def estimates(upstream: Upstream, seen: Windows, load: tuple[Array, Array]) -> tuple[Array, Array]:
    """least_time's minimum and maximum estimate of each server at each pick, in ms."""
    times = seen.response if "last_byte" in upstream.measure else seen.header
    least, most = np.zeros_like(load[0]), np.zeros_like(load[1])
    for number, server in enumerate(upstream.servers):
        picks = np.flatnonzero(seen.server == number)
        low, high = averages(seen, picks, times)
        idle = halvings(seen, picks, server.fail_timeout)
        least[:, number] = clustered(low >> idle[1]) * (1 + load[0][:, number])
        most[:, number] = clustered(high >> idle[0]) * (1 + load[1][:, number])
    return least, most


def clustered(times: Array) -> Array:
    """Times in the steps of oracle/least_time.py: the next multiple of 20 ms, at most 5,000."""
    return np.where(times > LONGEST, LONGEST, times + STEP - times % STEP)


def averages(seen: Windows, picks: Array, times: Array) -> tuple[Array, Array]:
    """The bounds of a server's moving average at every pick, from its own answers' times.

    One ms is allowed for the order of responses within the same ms.
    """
    order = picks[np.argsort(seen.free_to[picks], kind="stable")]
    average, series = 0, [0]
    for sample in times[order].astype(int).tolist():
        average = averaged(average, sample)
        series.append(average)
    history = np.array(series)
    first = np.searchsorted(np.sort(seen.free_to[picks]), seen.pick_from, "left")
    last = np.searchsorted(np.sort(seen.free_from[picks]), seen.pick_to, "right")
    low, high = history[first].copy(), history[first].copy()
    for step in range(1, int((last - first).max(initial=0)) + 1):
        value = history[np.minimum(first + step, last)]
        low, high = np.minimum(low, value), np.maximum(high, value)
    known = first > 0
    return np.where(known, np.maximum(low - 1, 0), 0), high + (last > 0)


def halvings(seen: Windows, picks: Array, fail_timeout: int) -> tuple[Array, Array]:
    """The minimum and maximum number of times that a server's average was halved at each pick.

    nginx records a pick of a server only if it recorded none for more than fail_timeout seconds.
    """
    checked, history = LONG_AGO, [LONG_AGO]
    for second in np.sort(seen.pick_from[picks] // 1000).astype(int).tolist():
        checked = second if second - checked > fail_timeout else checked
        history.append(checked)
    before = np.searchsorted(np.sort(seen.pick_from[picks]), seen.pick_from, "left")
    idle = seen.pick_from // 1000 - np.array(history)[before]
    low, high = idle - 1, idle + 1
    times = [
        np.where(seconds > fail_timeout, seconds // (fail_timeout + 1), 0)
        for seconds in (low, high)
    ]
    return np.clip(times[0], 0, 62).astype(int), np.clip(times[1], 0, 62).astype(int)
