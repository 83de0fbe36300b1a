"""Count the requests that nginx had in flight at each server, from its log."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from ..evidence.access_log import Hit, Unproxied
from ..verdict.replay import value_at

EARLY = 0.1  # seconds that nginx's clock, read once per event loop iteration, may lag


class InFlight:
    """The start and end times of the attempts at each server, in order."""

    def __init__(self, hits: Iterable[Hit | Unproxied]) -> None:
        self._begins: dict[str, list[float]] = {}
        self._ends: dict[str, list[float]] = {}
        for hit in hits:
            for server, begin, end in _attempts(hit):
                self._begins.setdefault(server, []).append(begin)
                self._ends.setdefault(server, []).append(end)
        for times in (*self._begins.values(), *self._ends.values()):
            times.sort()

    def most(self, server: str, moment: float) -> int:
        """The maximum number of attempts at a server at a moment, within the clock's accuracy."""
        begun = bisect_right(self._begins.get(server, []), moment + EARLY)
        return begun - bisect_left(self._ends.get(server, []), moment - EARLY)


def _attempts(hit: Hit | Unproxied) -> Iterator[tuple[str, float, float]]:
    """Each server that was tried, and when; the last attempt ended with the request."""
    if isinstance(hit, Unproxied):
        return
    end = hit.msec
    for index in reversed(range(len(hit.upstream_addr))):
        begin = end - (value_at(hit.upstream_response_time, index) or 0.0)
        yield hit.upstream_addr[index], begin, end
        end = begin
