"""Rank the methods for a fleet by simulated runs, each seed with every method."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..accounts.scorecard import MEASURES, Contest, Difference, Run, Scorecard, contest, values_of
from ..errors import UsageError
from ..nginxconf import methods
from ..traffic.fleet_file import parse_fleet
from ..traffic.scenario import Scenario
from . import simulation
from .jobs import Workload

SEEDS = 8
NOTICEABLE = 0.05  # a smaller difference, as a share of the best figure, does not decide
OVERLOADED = "overloaded"  # the share of a method's runs in which the fleet fell behind the load
WAITING = 0.05  # share of the requests without a first token when the last one is sent
# The times that users wait for, the most important first.
DECIDING = ("ttft_p50_ms", "ttft_p99_ms", "e2e_p99_ms", "itl_p99_ms")
# The simplest first: of methods that tie, the first is taken.
CANDIDATES = methods.advised()


@dataclass(frozen=True, slots=True)
class Ranked:
    """A method's place in the ranking: 1 for the best and for all that tie with it.

    `values` has the mean of each measure over all seeds; `why` names the decisive difference.
    """

    method: str
    place: int
    values: dict[str, float]
    why: str
    costs: str


@dataclass(frozen=True)
class Advice:
    """The ranking of the methods for a fleet, the config of the best, and the simulated runs.

    `refused` gives the reason for each method that the fleet's nginx does not have. `trade_offs`
    are the times in which another method is better than the one to use. `overloaded` says that
    with this one more and more requests wait.
    """

    fleet: str
    servers: int
    ranking: tuple[Ranked, ...]
    refused: dict[str, str]
    trade_offs: tuple[str, ...]
    overloaded: bool
    config: str
    card: Scorecard

    @property
    def best(self) -> tuple[str, ...]:
        """The names of all methods in first place, the simplest first."""
        return tuple(row.method for row in self.ranking if row.place == 1)

    def as_dict(self) -> dict[str, Any]:
        """Everything except the single runs as plain values, for JSON."""
        return {
            "fleet": self.fleet,
            "servers": self.servers,
            "seeds": SEEDS,
            "use": self.best[0],
            "tie": list(self.best) if len(self.best) > 1 else None,
            "ranking": [asdict(row) for row in self.ranking],
            "refused": self.refused,
            "trade_offs": list(self.trade_offs),
            "overloaded": self.overloaded,
            "config": self.config,
        }


def advise(path: str, on_run: Callable[[str], None] | None = None) -> Advice:
    """Rank the methods for the fleet in a YAML file; UsageError if it cannot be read.

    `on_run` is called with the method and the seed of each run that has ended.
    """
    try:
        scenario, version, weights = parse_fleet(Path(path).read_bytes(), path)
    except OSError as error:
        raise UsageError(
            f'cannot read fleet "{path}": {error.strerror}', "lab advise --fleet FILE.yaml"
        ) from None
    refused = dict(_refused(version))
    allowed = [name for name in CANDIDATES if name not in refused]
    try:
        runs = tuple(_runs(scenario, allowed, weights, on_run))
    except UsageError as error:
        raise UsageError(f'{error.message} in fleet "{path}"', error.hint) from None
    card = Scorecard(runs, {}, simulated=True)
    ranking = tuple(_ranked(card, scenario.name, allowed))
    best = ranking[0].method
    servers = [f"backend-{n}" for n in range(1, scenario.backends + 1)]
    return Advice(
        scenario.name,
        scenario.backends,
        ranking,
        refused,
        tuple(_trade_offs(card, scenario.name, best)),
        _is_overloaded(scenario, ranking[0]),
        config_of(best, servers, weights),
        card,
    )


def _is_overloaded(scenario: Scenario, best: Ranked) -> bool:
    """Whether requests arrive faster than they are answered by the best method.

    Only for steady arrivals: bursts queue in any fleet, and closed-loop users wait for answers.
    """
    steady = scenario.trace is None and scenario.arrivals in ("poisson", "constant")
    return steady and best.values[OVERLOADED] > 0.5


def _refused(version: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    for name in CANDIDATES:
        needs = methods.method(name).needs
        if needs > version:
            yield name, f"needs nginx {'.'.join(map(str, needs))}"


def _runs(
    scenario: Scenario,
    names: Sequence[str],
    weights: Sequence[int],
    on_run: Callable[[str], None] | None,
) -> Iterator[Run]:
    for seed in range(scenario.seed, scenario.seed + SEEDS):
        seeded = replace(scenario, seed=seed)
        work = _from_other_networks(simulation.workload_for(seeded), seed)
        if not len(work):
            raise UsageError("too few requests to compare", "a longer duration, or requests: 1500")
        for method in names:
            run = simulation.simulate(
                seeded, method, weights=",".join(map(str, weights)), work=work
            )
            values = {**values_of(run.figures), OVERLOADED: float(_falls_behind(run))}
            yield Run(scenario.name, method, seed, values)
            if on_run:
                on_run(f"{method}, seed {seed}")


def _from_other_networks(work: Workload, seed: int) -> Workload:
    """The workload with other client addresses for each seed.

    Which server ip_hash gives to a client is chance. With one NAT in all seeds, that chance
    would decide whether all requests go to the fastest server or to the slowest.
    """
    return replace(work, client=(work.client.astype(np.int64) + 40_503 * seed % 65_536) & 0xFFFF)


def _falls_behind(run: simulation.Simulated) -> bool:
    """Whether over 5 % of the requests have no token when the last one is sent, and waits grow.

    The last third must wait more than twice as long as the first third, because a few long prompts
    wait in any fleet.
    """
    result = run.run.result
    third = len(result.sent) // 3
    if not third or np.mean(result.first > result.sent.max()) <= WAITING:
        return False
    waited = (result.first - result.sent)[np.argsort(result.sent)]
    return bool(np.median(waited[-third:]) > 2 * np.median(waited[:third]))


def _ranked(card: Scorecard, name: str, names: Sequence[str]) -> Iterator[Ranked]:
    """Rank the methods: repeatedly take the best of those without a place."""
    unplaced, place = list(names), 1
    losses: dict[str, str] = {}
    while unplaced:
        group, beaten = _best(card, name, unplaced)
        for method in group:
            values = {
                measure: sum(by_seed.values()) / len(by_seed)
                for measure in (*MEASURES, OVERLOADED)
                if (by_seed := card.values(name, measure).get(method))
            }
            why = losses.get(method, "a tie" if len(group) > 1 else "the best")
            yield Ranked(method, place, values, why, CANDIDATES[method].costs)
        losses = {**beaten, **losses}
        unplaced = [method for method in unplaced if method not in group]
        place += len(group)


def _best(card: Scorecard, name: str, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The methods among `names` that no other beats, and why each of the others was beaten."""
    unbeaten, beaten = list(names), dict[str, str]()
    for measure in DECIDING:
        values = {m: v for m, v in card.values(name, measure).items() if m in unbeaten}
        if len(values) < 2:
            continue
        for method, why in _losses(contest(name, MEASURES[measure], values)).items():
            beaten[method] = why
            unbeaten.remove(method)
    return unbeaten, beaten


def _trade_offs(card: Scorecard, name: str, method: str) -> Iterator[str]:
    """Yield each time in which the best of all methods is noticeably better than this one."""
    for measure in DECIDING:
        values = card.values(name, measure)
        if method in values:
            losses = _losses(contest(name, MEASURES[measure], values))
            yield from (why for loser, why in losses.items() if loser == method)


def _losses(result: Contest) -> dict[str, str]:
    """The methods that are noticeably worse than the best in a contest, and by how much."""
    first = result.best[0]
    best = result.means[first]
    return {
        method: _why(result.measure, gap, best, first)
        for method, gap in result.behind.items()
        if gap.is_decided and gap.mean > NOTICEABLE * best
    }


def _why(measure: str, gap: Difference, best: float, first: str) -> str:
    low, high = gap.low or 0.0, gap.high or 0.0
    if not best:
        return (
            f"{measure} {gap.mean:,.1f} above {first}'s (95 % interval {low:,.1f} to {high:,.1f})"
        )
    return (
        f"{measure} {gap.mean / best:+.0%} of {first}'s"
        f" (95 % interval {low / best:+.0%} to {high / best:+.0%})"
    )


def config_of(method: str, servers: Sequence[str], weights: Sequence[int] = ()) -> str:
    """Return a complete nginx.conf that balances LLM requests by a method."""
    upstream = methods.render(methods.Choice(method, tuple(servers), tuple(weights)))
    body = "\n".join(f"    {line}" if line else "" for line in _without_lab_lines(upstream))
    return f"""\
# Put your servers' addresses in place of backend-N:8000.
worker_rlimit_nofile 8192;

events {{
    worker_connections 4096;             # two a request: the client's and the server's
}}

http {{
    client_max_body_size 16m;
    client_body_buffer_size 1m;          # a prompt stays in memory
    client_body_in_single_buffer on;

{body}
    server {{
        listen 8080;

        location / {{
            proxy_pass http://llm;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_buffering off;         # a token leaves as it comes
            proxy_read_timeout 600s;     # a slow first token is not a failure
        }}
    }}
}}
"""


def _without_lab_lines(upstream: str) -> list[str]:
    """The lines of an upstream.conf, without those that only the lab needs."""
    for_the_lab = ("# ", 'map "" $hash_key')
    return [line for line in upstream.splitlines() if not line.startswith(for_the_lab)]
