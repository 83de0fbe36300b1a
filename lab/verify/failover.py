"""Fail-over: which servers must answer while others refuse connections, and whether they did."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..nginxconf.model import Upstream

REQUESTS = 20  # sent while servers are closed
LOST = (502, 504)  # what nginx answers where no server took the request


@dataclass(frozen=True, slots=True)
class Drill:
    """Servers that refuse connections, and those that must answer instead.

    `retried` says whether the config lets nginx try the next server after a refused connection;
    `rule` is the setting that decides it.
    """

    closed: tuple[str, ...]
    heirs: tuple[str, ...]
    retried: bool
    rule: str


def drills(upstream: Upstream) -> Iterator[Drill]:
    """Close the first server; close all primary servers where there are backups."""
    live = [server for server in upstream.servers if not (server.down or server.drain)]
    primaries = tuple(server.name for server in live if not server.backup)
    backups = tuple(server.name for server in live if server.backup)
    if len(primaries) > 1:
        yield drill(upstream, primaries[:1], primaries[1:])
    if primaries and backups:
        yield drill(upstream, primaries, backups)


def drill(upstream: Upstream, closed: tuple[str, ...], heirs: tuple[str, ...]) -> Drill:
    """One drill under the upstream's rules of retry."""
    rules = upstream.next_upstream
    if "error" not in rules.conditions:
        return Drill(closed, heirs, retried=False, rule="proxy_next_upstream has no error")
    if 0 < rules.tries <= len(closed):
        return Drill(closed, heirs, retried=False, rule=f"proxy_next_upstream_tries {rules.tries}")
    return Drill(closed, heirs, retried=True, rule="proxy_next_upstream error")


def outcome(drill: Drill, answers: Sequence[tuple[str, int]]) -> tuple[str, str]:
    """Summarise the answers (server or "" for nginx itself, status) as a text and a fault.

    The fault is empty if traffic followed the config.
    """
    counts = Counter(server for server, _ in answers if server)
    lost = sum(1 for server, status in answers if not server and status in LOST)
    shown = ", ".join(f"{name} {counts[name]}" for name in drill.heirs)
    text = f"without {', '.join(drill.closed)}: {shown} of {len(answers)}"
    text += f", {lost} lost ({drill.rule})" if lost else ""
    if wrong := [name for name in drill.closed if counts[name]]:
        return text, f"{wrong[0]} answered while it refused connections"
    if drill.retried and lost:
        return text, f"{lost} requests were lost, although the next server had to be tried"
    return text, ""
