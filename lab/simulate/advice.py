"""Which method for a fleet: simulate all that its nginx has, and rank them by paired runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..accounts.scorecard import MEASURES, Difference, Run, Scorecard, contest, values_of
from ..errors import UsageError
from ..nginxconf import methods
from ..traffic import scenario as scenarios
from . import simulation

if TYPE_CHECKING:
    from ..traffic.scenario import Scenario

SEEDS = 8
NOTICEABLE = 0.05  # a difference below this share changes nobody's choice
# What a user waits for, the most important first.
DECIDING = ("ttft_p50_ms", "ttft_p99_ms", "e2e_p99_ms", "itl_p99_ms")
# The simplest first: of methods that tie, the first is taken.
CANDIDATES = (
    "round_robin",
    "least_conn",
    "random_two",
    "least_time",
    "sticky",
    "prompt_prefix",
    "ip_hash",
)
COSTS = {
    "round_robin": "blind to load: long answers and slow servers queue up",
    "least_conn": "counts requests, not tokens; blind to prefix caches",
    "random_two": "a little less even than least_conn; made for several nginx side by side",
    "least_time": "sends most requests to the fastest servers; a slow start skews its averages",
    "sticky": "clients must keep a cookie; new servers fill slowly, a lost one loses its sessions",
    "prompt_prefix": "uneven: shares follow the prompts; a hot prompt stays on one server",
    "ip_hash": "shares follow the client networks; one NAT is one server",
}


@dataclass(frozen=True, slots=True)
class Ranked:
    """A method's place: 1 for the best and all that tie with it; why it is not better."""

    method: str
    place: int
    values: dict[str, float]
    why: str
    costs: str


@dataclass(frozen=True)
class Advice:
    """The ranking, the method to use, its config, and the runs behind it.

    `refused` names the methods that the fleet's nginx is too old for.
    """

    fleet: str
    servers: int
    ranking: tuple[Ranked, ...]
    refused: dict[str, str]
    config: str
    card: Scorecard

    @property
    def best(self) -> tuple[str, ...]:
        """The best method, or all that tie, the simplest first."""
        return tuple(row.method for row in self.ranking if row.place == 1)

    def as_dict(self) -> dict[str, Any]:
        """Give everything but the single runs as plain values, for JSON."""
        return {
            "fleet": self.fleet,
            "servers": self.servers,
            "seeds": SEEDS,
            "use": self.best[0],
            "tie": list(self.best) if len(self.best) > 1 else None,
            "ranking": [
                {name: getattr(row, name) for name in Ranked.__dataclass_fields__}
                for row in self.ranking
            ],
            "refused": self.refused,
            "config": self.config,
        }


def advise(path: str, on_run: Callable[[str], None] | None = None) -> Advice:
    """Advise on the fleet that a file describes; UsageError where it cannot be read."""
    try:
        scenario, version, weights = scenarios.parse_fleet(Path(path).read_bytes(), path)
    except OSError as error:
        raise UsageError(
            f'cannot read fleet "{path}": {error.strerror}', "lab advise --fleet FILE.yaml"
        ) from None
    refused = dict(_refused(version))
    allowed = [name for name in CANDIDATES if name not in refused]
    card = Scorecard(tuple(_runs(scenario, allowed, weights, on_run)), {}, simulated=True)
    ranking = tuple(_ranked(card, scenario.name, allowed))
    servers = [f"backend-{n}" for n in range(1, scenario.backends + 1)]
    config = config_of(ranking[0].method, servers, weights)
    return Advice(scenario.name, scenario.backends, ranking, refused, config, card)


def _refused(version: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    for name in CANDIDATES:
        needs = methods.method(name).needs
        if needs > version:
            yield name, f"needs nginx {'.'.join(map(str, needs))}"


def _runs(
    scenario: "Scenario",
    names: Sequence[str],
    weights: Sequence[int],
    on_run: Callable[[str], None] | None,
) -> Iterator[Run]:
    for seed in range(scenario.seed, scenario.seed + SEEDS):
        seeded = replace(scenario, seed=seed)
        work = simulation.laid_out(seeded)
        for method in names:
            run = simulation.simulate(
                seeded, method, weights=",".join(map(str, weights)), work=work
            )
            yield Run(scenario.name, method, seed, values_of(run.figures))
            if on_run:
                on_run(f"{method}, seed {seed}")


def _ranked(card: Scorecard, name: str, names: Sequence[str]) -> Iterator[Ranked]:
    """Place the methods: the best of what is left, again and again."""
    left, place = list(names), 1
    lost: dict[str, str] = {}
    while left:
        group, beaten = _best(card, name, left)
        for method in group:
            values = {
                measure: sum(seen.values()) / len(seen)
                for measure in MEASURES
                if (seen := card.values(name, measure).get(method))
            }
            why = lost.get(method, "a tie" if len(group) > 1 else "the best")
            yield Ranked(method, place, values, why, COSTS[method])
        lost = {**beaten, **lost}
        left = [method for method in left if method not in group]
        place += len(group)


def _best(card: Scorecard, name: str, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The methods among `names` that none of them beats, and what beat the others."""
    left, beaten = list(names), dict[str, str]()
    for measure in DECIDING:
        values = {m: v for m, v in card.values(name, measure).items() if m in left}
        if len(values) < 2:
            continue
        result = contest(name, MEASURES[measure], values)
        first = result.best[0]
        for method, gap in result.behind.items():
            if gap.is_decided and gap.mean > NOTICEABLE * result.means[first]:
                beaten[method] = _why(measure, gap, result.means[first], first)
                left.remove(method)
    return left, beaten


def _why(measure: str, gap: Difference, best: float, first: str) -> str:
    low, high = gap.low or 0.0, gap.high or 0.0
    return (
        f"{measure} {gap.mean / best:+.0%} of {first}'s"
        f" (95 % interval {low / best:+.0%} to {high / best:+.0%})"
    )


def config_of(method: str, servers: Sequence[str], weights: Sequence[int] = ()) -> str:
    """Return a whole nginx.conf that balances LLM requests by a method."""
    upstream = methods.render(methods.Choice(method, tuple(servers), tuple(weights)))
    body = "\n".join(f"    {line}" if line else "" for line in _lasting(upstream))
    return f"""\
events {{}}

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


def _lasting(upstream: str) -> list[str]:
    """The lines of the lab's upstream.conf that a config of its own needs."""
    own = ("# ", 'map "" $hash_key')
    lines = upstream.splitlines()
    return [line for line in lines if not line.startswith(own)]
