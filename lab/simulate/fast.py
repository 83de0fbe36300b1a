"""Run the compiled event loop: allocate and grow its arrays, report progress."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from ..backends.llm.engine import PICOSECONDS
from ..errors import UsageError
from ..nginxconf.methods import METHODS, Decides
from ..signals import INTERRUPTIONS, signals_held
from . import kernel
from .jobs import FOREVER, MOST_DAYS, Workload

if TYPE_CHECKING:
    from ..backends.llm.profiles import Profile

_SLICE = 100_000  # requests between two reports of progress
_ROOM = 4096  # entries of a pool at first; it doubles when they are used up
# By what a method picks by, and whether response times are part of the load.
KINDS = {
    ((Decides.TURNS,), False): kernel.ROUND_ROBIN,
    ((Decides.LOAD, Decides.TURNS), False): kernel.LEAST_CONN,
    ((Decides.LOAD, Decides.TURNS), True): kernel.LEAST_TIME,
    ((Decides.DRAW,), False): kernel.RANDOM,
    ((Decides.DRAW, Decides.LOAD), False): kernel.RANDOM_TWO,
    ((Decides.KEY, Decides.TURNS), False): kernel.STICKY,
}

OnSent = Callable[[int], None]


def is_compiled() -> bool:
    """Whether the loop has been compiled before, so that the first run only loads it."""
    return any(Path(kernel.loop.stats.cache_path).glob("kernel.loop-*.nbi"))


class Interrupted(KeyboardInterrupt):
    """A simulation was interrupted; `run` has the requests that were answered until then."""

    def __init__(self, run: "Run") -> None:
        super().__init__()
        self.run = run


def run(
    work: Workload,
    profiles: "Sequence[tuple[Profile, float]]",
    method: str,
    picks: "kernel.Backends | None" = None,
    weights: Sequence[int] = (),
    seed: int = 1,
    on_sent: OnSent | None = None,
) -> "Run":
    """Simulate a workload on backends, each a profile and a factor that stretches its steps.

    `picks` has the server of each request if the method picks by the request alone. Ctrl-C and
    SIGTERM raise Interrupted with the results so far. UsageError if some requests begin or end
    after the days that are simulated.
    """
    record = METHODS[method]
    kind = kernel.STATIC if picks is not None else KINDS[record.decides, record.by_time]
    backends = len(profiles)
    with signals_held():  # the first calls compile functions, or load compiled ones
        jobs, result = _jobs(work, picks), _result(len(work))
        users = int(work.user.max(initial=0)) + 1 if kind == kernel.STICKY else 0
        peers = _peers(weights or (1,) * backends, users, seed)
        state = _with_room(jobs, _state(_fleet(profiles), work))
        ended = np.empty(state.decoding.shape[1], np.int32)
        kernel.set_all_due(state)
        code = kernel.loop(kind, jobs, state, result, peers, ended, 0)
    while code != kernel.DONE:
        try:
            code = kernel.loop(kind, jobs, state, result, peers, ended, _SLICE)
            if on_sent:
                on_sent(int(state.at[4]))
        except INTERRUPTIONS as interruption:
            raise Interrupted(Run(result, state.servers, state.gaps)) from interruption
        if code == kernel.FULL:
            state = _with_room(jobs, state)
    _check_clock(work, result)
    return Run(result, state.servers, state.gaps)


def _check_clock(work: Workload, result: kernel.Result) -> None:
    """Raise UsageError if requests were left out, because they begin or end too late."""
    late = result.last < result.sent  # -1 for a request that was not answered
    if work.last_due == FOREVER:  # no duration ends the load: every request is sent
        late |= result.sent < 0
    if late.any():
        raise UsageError(
            f"{int(late.sum()):,} of {len(work):,} requests begin or end too late;"
            f" at most {MOST_DAYS} days are simulated",
            "fewer requests, shorter pauses (think), or a fleet that is not overloaded",
        )


@dataclass(frozen=True)
class Run:
    """The result of the loop: the outcome of each request, and the totals of the backends.

    `servers` has a kernel.SERVER for each backend. `gaps` is the histogram of the times between two
    tokens that kernel.State describes. The rest of that state is freed: 100 MB for 10 million
    requests.
    """

    result: kernel.Result
    servers: Any
    gaps: "kernel.Ints"


def _jobs(work: Workload, picks: "kernel.Backends | None") -> kernel.Jobs:
    chains = len(work.firsts) if (work.follows >= 0).any() else 0
    return kernel.Jobs(
        work.due,
        work.firsts,
        work.follows,
        work.prompt,
        work.output,
        work.node,
        picks if picks is not None else np.empty(0, np.int16),
        work.user,
        np.full(chains + 1, FOREVER, np.int64),
        np.zeros(chains + 1, np.int32),
        work.last_due,
        work.stream,
        work.depth,
    )


def _fleet(profiles: "Sequence[tuple[Profile, float]]") -> Any:
    """Return the backends' timing and limits, in picoseconds, rounded as the engine rounds them."""
    costs = ("step_base", "per_token", "per_context", "per_pair")
    limits = ("max_num_seqs", "max_num_batched_tokens", "kv_blocks")
    return np.array(
        [
            (
                *(round(getattr(profile, name) * slow * PICOSECONDS) for name in costs),
                *(getattr(profile, name) for name in limits),
            )
            for profile, slow in profiles
        ],
        kernel.MACHINE,
    )


def _state(fleet: Any, work: Workload) -> kernel.State:
    backends = len(fleet)
    servers = np.zeros(backends, kernel.SERVER)
    servers["ends"] = servers["next_last"] = kernel.NEVER
    servers["free"] = fleet["blocks"]
    for name in ("waiting_head", "queue_head", "partial", "lru_head", "lru_tail"):
        servers[name] = -1
    size = 1 << max(0, (backends - 1).bit_length())
    tree = np.full(2 * size, -1, np.int64)
    tree[size : size + backends] = np.arange(backends)
    nodes = np.zeros(len(work.parent), kernel.NODE)
    nodes["parent"], nodes["end"] = work.parent, work.end
    at = np.zeros(5, np.int64)
    at[2:4] = _ROOM
    return kernel.State(
        fleet=fleet,
        servers=servers,
        decoding=np.zeros((backends, int(fleet["max_seqs"].max()) + 1), np.int32),
        growing=np.zeros((backends, kernel.BLOCK_TOKENS), np.int32),
        slots=np.zeros(_ROOM, kernel.SLOT),
        runs=np.zeros(_ROOM, kernel.RUN),
        nodes=nodes,
        waiting=np.zeros(len(work), np.int32),  # pages that stay zero take no memory
        table=numba.typed.Dict.empty(numba.int64, numba.int32),
        tree=tree,
        free_slots=np.arange(_ROOM, dtype=np.int32)[::-1].copy(),
        free_runs=np.arange(_ROOM, dtype=np.int32)[::-1].copy(),
        path=np.zeros(work.depth + 1, np.int32),
        gaps=np.zeros(kernel.GAP_BINS + 1, np.int64),
        at=at,
    )


def _with_room(jobs: kernel.Jobs, state: kernel.State) -> kernel.State:
    """Double the pools that are too small: the slots, or the runs of blocks."""
    while kernel.slots_short(state):
        state = state._replace(free_slots=_doubled(state.slots, state.free_slots, state.at, 2))
    while kernel.runs_short(jobs, state):
        state = state._replace(free_runs=_doubled(state.runs, state.free_runs, state.at, 3))
    return state


def _doubled(pool: Any, free: "kernel.Shorts", at: "kernel.Ints", place: int) -> "kernel.Shorts":
    """Double a pool in place, and return the list of its free entries, which `at[place]` counts."""
    size, left = len(pool), int(at[place])
    pool.resize(2 * size, refcheck=False)  # only the state refers to it; its pages move uncopied
    at[place] += size
    fresh = np.arange(2 * size - 1, size - 1, -1, dtype=np.int32)
    return np.concatenate([free[:left], fresh, np.zeros(size - left, np.int32)])


def _peers(weights: Sequence[int], users: int, seed: int) -> kernel.Peers:
    backends = len(weights)
    weight = np.array(weights, np.int64)
    return kernel.Peers(
        weight=weight,
        conns=np.zeros(backends, np.int64),
        current=np.zeros(backends, np.int64),
        header=np.zeros(backends, np.int64),
        checked=np.full(backends, -(10**9), np.int64),
        ends=np.cumsum(weight),
        bound=np.full(users, -1, np.int32),
        random=np.array([seed], np.uint64),
        ranking=_ranking(weight),
    )


def _ranking(weights: "kernel.Ints") -> kernel.Ranking:
    """The tournaments of servers that have nothing in flight: one for each distinct weight."""
    distinct, classes, counts = np.unique(weights, return_inverse=True, return_counts=True)
    sizes = np.array([1 << (int(count) - 1).bit_length() for count in counts], np.int64)
    begins = np.cumsum(2 * sizes) - 2 * sizes
    nodes = int(2 * sizes.sum())
    ranking = kernel.Ranking(
        weight=distinct,
        begin=begins,
        size=sizes,
        of=classes.astype(np.int32),
        place=np.zeros(len(weights), np.int32),
        least=np.full(nodes, kernel.NEVER, np.int64),
        tied=np.zeros(nodes, np.int64),
        score=np.zeros(nodes, np.int64),
        owed=np.zeros(nodes, np.int64),
        best=np.full(nodes, -1, np.int32),
    )
    for c, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
        (members,) = np.nonzero(classes == c)
        ranking.place[members] = np.arange(len(members))
        leaves = begin + size + np.arange(len(members))
        ranking.least[leaves], ranking.tied[leaves], ranking.best[leaves] = 0, 1, members
        kernel.merge_all(ranking, c)
    return ranking


def _result(requests: int) -> kernel.Result:
    return kernel.Result(
        sent=np.full(requests, -1, np.int64),
        first=np.full(requests, -1, np.int64),
        last=np.full(requests, -1, np.int64),
        cached=np.zeros(requests, np.int32),
        queued=np.zeros(requests, np.float32),
        backend=np.full(requests, -1, np.int16),
    )
