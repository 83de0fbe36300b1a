"""Generate a scenario as arrays: due times of requests, their tokens, the prefixes they share."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..backends.llm.blocks import BLOCK_TOKENS
from ..backends.llm.engine import PICOSECONDS
from ..errors import UsageError
from ..traffic import outline, workload
from ..traffic.scenario import Scenario
from ..traffic.trace_file import BLOCK_TOKENS as TRACE_BLOCK
from ..traffic.trace_file import Row

if TYPE_CHECKING:
    from .kernel import Ints, Shorts

FOREVER = 2**61  # 26.7 days in picoseconds
MOST_DAYS = 26
_TOGETHER = 256 * outline.BLOCK  # conversations that are drawn at a time: about 20 MB


@dataclass(frozen=True)
class Workload:
    """The requests of a scenario, column by column; times are in picoseconds.

    A request in `firsts` follows no other; its `due` is the time from the start. `due` of any other
    request is a pause after the answer that it follows. `follows` has the number of the request
    that follows each answer, -1 for none; it is empty if no request follows another.
    Prompts with a common start share a path in a prefix tree: `node` is the deepest node of each
    request's prompt that other prompts share, -1 for none. Each node has a `parent`, and an `end`
    in blocks of 16 tokens from the root. No path has more than `depth` nodes.
    """

    due: "Ints"
    firsts: "Shorts"
    follows: "Shorts"
    prompt: "Shorts"
    output: "Shorts"
    node: "Shorts"
    user: "Shorts"
    session: "Shorts"
    tenant: "Shorts"
    client: "Shorts"
    turn: "Shorts"
    parent: "Shorts"
    end: "Shorts"
    last_due: int
    depth: int
    stream: bool = True

    def __len__(self) -> int:
        """Count the requests."""
        return len(self.due)

    def delayed(self, seconds: "npt.NDArray[np.float64]") -> "Workload":
        """Return the workload with each request delayed by its seconds; no time is before 0."""
        due = np.maximum(self.due + np.rint(seconds * PICOSECONDS).astype(np.int64), 0)
        firsts = self.firsts[np.argsort(due[self.firsts], kind="stable")]
        return replace(self, due=due, firsts=firsts)

    def picked(self) -> "Workload":
        """Return the workload without the columns that only picks need."""
        none = np.empty(0, np.int32)
        return replace(self, session=none, tenant=none, client=none, turn=none)


def workload_of(scenario: Scenario, share: int | None = None) -> Workload:
    """Generate a scenario's requests, the same that `lab load` sends.

    `share` limits the requests of each closed-loop user if nothing but the duration ends them.
    """
    if scenario.trace is not None:
        return _traced(scenario, scenario.trace.rows)
    sketch = outline.Outline(scenario)
    closed = scenario.arrivals == "closed"
    chains = _closed(scenario, sketch, share) if closed else _open(scenario)
    count, lengths = len(chains.sessions), chains.lengths
    edges = np.concatenate([[0], np.cumsum(lengths)])
    columns = _columns(int(edges[-1]))
    tree = _Tree.of(scenario)
    # closed-loop users' conversations are not in the order of their numbers: draw all at once
    step = max(1, count) if closed else _TOGETHER
    for start in range(0, count, step):
        part = slice(start, min(start + step, count))
        numbers = slice(edges[part.start], edges[part.stop])
        _draw(scenario, sketch, chains, part, tree, {k: v[numbers] for k, v in columns.items()})
    parent, end = tree.arrays()
    return Workload(
        due=columns["due"],
        firsts=_firsts(chains, edges, columns["due"]),
        follows=_follows(chains, edges, columns["turn"]),
        prompt=columns["prompt"],
        output=columns["output"],
        node=columns["node"],
        user=_spread(chains.users, lengths),
        session=_spread(chains.sessions, lengths),
        tenant=columns["tenant"],
        client=columns["client"],
        turn=columns["turn"],
        parent=parent,
        end=end,
        last_due=round(scenario.duration * PICOSECONDS) if scenario.duration else FOREVER,
        depth=int(lengths.max(initial=1)) + 1,
        stream=scenario.stream,
    )


def _columns(requests: int) -> "dict[str, Any]":
    """Allocate the columns of all requests; pages that stay zero take no memory."""
    names = ("prompt", "output", "node", "tenant", "turn")
    columns = {name: np.zeros(requests, np.int32) for name in names}
    return {"due": np.zeros(requests, np.int64), "client": np.zeros(requests, np.uint16), **columns}


def _draw(
    scenario: Scenario,
    sketch: outline.Outline,
    chains: "_Chains",
    part: slice,
    tree: "_Tree",
    columns: "dict[str, Any]",
) -> None:
    """Draw some conversations, `part` of the chains, into the columns of their requests."""
    sessions, lengths = chains.sessions[part], chains.lengths[part]
    shape = (len(sessions), scenario.sessions.turns)
    prompts, answers = np.empty(shape, np.int32), np.empty(shape, np.int32)
    pauses, tenants = np.empty(shape), np.empty(len(sessions), np.int32)
    for block, rows in _by_block(sessions):
        places = sessions[rows] % outline.BLOCK
        drawn = sketch.conversations(block)
        prompts[rows], answers[rows] = drawn.prompts[places], drawn.answers[places]
        pauses[rows], tenants[rows] = drawn.pauses[places], drawn.tenants[places]
    session = np.repeat(np.arange(len(sessions)), lengths)
    turn = np.arange(len(session)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    due = pauses[session, turn]
    due[turn == 0] = chains.dues[part]
    prompt = _prompt_tokens(scenario, prompts, answers)[session, turn]
    columns["due"][:] = _picoseconds(due)
    columns["prompt"][:] = prompt
    columns["output"][:] = answers[session, turn]
    if scenario.tenants.n > 1:
        columns["tenant"][:] = tenants[session]
    columns["client"][:] = _clients(sketch, chains.users[part])[session]
    if scenario.sessions.turns > 1:
        columns["turn"][:] = turn
    columns["node"][:] = tree.grow(tenants[session], prompt, turn, turn == lengths[session] - 1)


def _by_block(numbers: "Shorts") -> "Iterator[tuple[int, Ints]]":
    """Yield each block of conversations, or users, that is drawn at once, and its members."""
    blocks = numbers // outline.BLOCK
    order = np.argsort(blocks, kind="stable")
    distinct, starts = np.unique(blocks[order], return_index=True)
    for block, rows in zip(distinct, np.split(order, starts[1:]), strict=True):
        yield int(block), rows


def _spread(values: "Shorts", lengths: "Shorts") -> "Shorts":
    """Give each request the value of its conversation."""
    return values if len(lengths) == lengths.sum() else np.repeat(values, lengths)


def _firsts(chains: "_Chains", edges: "Ints", due: "Ints") -> "Shorts":
    """Return the requests that follow no other, in the order of their times."""
    if chains.nexts is None and len(chains.sessions) == edges[-1]:
        return chains.sessions  # the same numbers, which need no memory of their own
    starts = edges[:-1].astype(np.int32)
    if chains.nexts is None:
        return starts  # conversations are numbered in the order in which they begin
    begins = starts[~chains.follows_another]
    return begins[np.argsort(due[begins], kind="stable")]


def _follows(chains: "_Chains", edges: "Ints", turn: "Shorts") -> "Shorts":
    """Return the request that follows each one's answer: the next turn or the next conversation."""
    if chains.nexts is None and len(turn) == len(chains.lengths):
        return np.empty(0, np.int32)
    follows = np.full(len(turn), -1, np.int32)
    (later,) = np.nonzero(turn)
    follows[later - 1] = later
    if chains.nexts is not None:
        has_next = chains.nexts >= 0
        follows[edges[1:][has_next] - 1] = edges[chains.nexts[has_next]]
    return follows


@dataclass(frozen=True)
class _Chains:
    """Conversations: their numbers, users and lengths, and when each begins.

    `dues` are times from the start, or pauses if `follows_another`. `nexts` has the row of the
    same user's next conversation, -1 for none; it is None if no user has a second conversation.
    """

    sessions: "Shorts"
    users: "Shorts"
    lengths: "Shorts"
    dues: np.ndarray[tuple[int], np.dtype[np.float64]]
    nexts: "Ints | None" = None

    @property
    def follows_another(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether each conversation begins after another one of its user."""
        later = np.zeros(len(self.lengths), bool)
        if self.nexts is not None:
            later[self.nexts[self.nexts >= 0]] = True
        return later


def _open(scenario: Scenario) -> _Chains:
    turns, total = scenario.sessions.turns, workload.total(scenario)
    if scenario.duration is not None or total is None:
        pairs = list(workload.arrivals_of(scenario))
        dues = np.array([due for due, _ in pairs])
        lengths = np.array([share for _, share in pairs], np.int32)
    else:
        count = -(-total // turns)
        dues = np.fromiter(islice(workload.dues_of(scenario), count), float, count)
        lengths = np.full(count, turns, np.int32)
        lengths[-1:] = total - turns * (count - 1)
    sessions = np.arange(len(dues), dtype=np.int32)
    return _Chains(sessions, sessions, lengths, dues)


def _closed(scenario: Scenario, sketch: outline.Outline, share: int | None) -> _Chains:
    users, turns = scenario.users, scenario.sessions.turns
    sessions, owners, lengths, dues = [], [], [], []
    nexts: list[int] = []
    for user in range(users):
        limits = (workload.share_of(scenario, user), share)
        remaining = min((limit for limit in limits if limit is not None), default=None)
        visit = 0
        while remaining is None or remaining > 0:
            length = turns if remaining is None else min(turns, remaining)
            remaining = None if remaining is None else remaining - length
            sessions.append(user + visit * users)
            owners.append(user)
            lengths.append(length)
            dues.append(sketch.pause(user, visit))
            nexts.append(len(nexts) + 1 if remaining else -1)
            visit += 1
    return _Chains(
        np.array(sessions, np.int32),
        np.array(owners, np.int32),
        np.array(lengths, np.int32),
        np.array(dues),
        np.array(nexts, np.int64),
    )


def _prompt_tokens(scenario: Scenario, prompts: "Shorts", answers: "Shorts") -> "Ints":
    """Count the tokens of each turn's whole prompt, as the backend counts them.

    A chat message has one token for its role, and the prompt ends with the assistant's.
    """
    history = np.cumsum(answers, axis=1, dtype=np.int64) - answers
    written = np.cumsum(prompts, axis=1, dtype=np.int64) + history
    system = scenario.tenants.system_tokens
    if scenario.api != "chat":
        return written + system
    turns = np.arange(prompts.shape[1])
    return written + 2 + 2 * turns + (system + 1 if system else 0)


@dataclass
class _Tree:
    """The prefix tree while it grows.

    It has a node for each tenant, and one for each turn that another turn follows. The `tenants`
    nodes come first, each `shared` blocks long; there are none where tenants share no whole block.
    """

    tenants: int
    shared: int
    size: int
    parents: "list[Shorts]"
    ends: "list[Shorts]"

    @classmethod
    def of(cls, scenario: Scenario) -> "_Tree":
        """Return the tree of a scenario's tenants."""
        system = scenario.tenants.system_tokens
        # the role of the user's message is the same in all prompts, too
        role = 2 if scenario.api == "chat" else 0
        shared = (system + role) // BLOCK_TOKENS if system else 0
        tenants = scenario.tenants.n if shared else 0
        parents = np.full(tenants, -1, np.int32)
        return cls(tenants, shared, tenants, [parents], [np.full(tenants, shared, np.int32)])

    def grow(self, tenant: "Shorts", prompt: "Ints", turn: "Ints", last: Any) -> "Ints":
        """Add nodes for the turns of whole conversations; return each request's deepest node."""
        inner = ~last
        number = np.cumsum(inner) - 1 + self.size
        above = np.where(turn > 0, np.roll(number, 1), tenant if self.shared else -1)
        self.size += int(inner.sum())
        self.parents.append(above[inner].astype(np.int32))
        self.ends.append((prompt[inner] // BLOCK_TOKENS).astype(np.int32))
        return np.where(inner, number, above)

    def arrays(self) -> "tuple[Shorts, Shorts]":
        """Return the parent and the end of every node."""
        return np.concatenate(self.parents), np.concatenate(self.ends)


def _clients(sketch: outline.Outline, users: "Shorts") -> "Shorts":
    clients = np.empty(len(users), np.int32)
    for block, rows in _by_block(users):
        clients[rows] = sketch.clients(block)[users[rows] % outline.BLOCK]
    return clients


def _traced(scenario: Scenario, rows: Sequence[Row]) -> Workload:
    """Lay out the requests of a trace; blocks of the same ids from the start are shared."""
    client = _counted(row.session or f"request {number}" for number, row in enumerate(rows))
    prompts = (row.blocks[0] if row.blocks else f"request {n}" for n, row in enumerate(rows))
    # a chat prompt begins with a role and ends with one
    role = 1 if scenario.api == "chat" else 0
    due = _picoseconds(np.array([row.at for row in rows]))
    nodes: dict[tuple[int, int], int] = {}
    ends: list[int] = []
    deepest = np.full(len(rows), -1, np.int32)
    for number, row in enumerate(rows):
        for place in range(row.input_tokens // TRACE_BLOCK if row.blocks else 0):
            key = (int(deepest[number]), row.blocks[place])
            if key not in nodes:
                nodes[key] = len(ends)
                ends.append((role + TRACE_BLOCK * (place + 1)) // BLOCK_TOKENS)
            deepest[number] = nodes[key]
    depth = max((len(row.blocks) for row in rows), default=0) + 1
    zeros = np.zeros(len(rows), np.int32)
    return Workload(
        due=due,
        firsts=np.argsort(due, kind="stable").astype(np.int32),
        follows=np.empty(0, np.int32),
        prompt=np.array([max(1, row.input_tokens) + 2 * role for row in rows], np.int32),
        output=np.array([row.output_tokens for row in rows], np.int32),
        node=deepest,
        user=client,
        session=client,
        tenant=_counted(prompts),
        client=client & 0xFFFF,
        turn=zeros,
        parent=np.array([parent for parent, _ in nodes], np.int32),
        end=np.array(ends, np.int32),
        last_due=FOREVER,
        depth=depth,
        stream=scenario.stream,
    )


def _picoseconds(due: outline.Seconds) -> "Ints":
    """Return times in whole picoseconds; UsageError for one that is not before FOREVER."""
    days = float(due.max(initial=0.0)) / 86_400
    if days > MOST_DAYS:
        raise UsageError(
            f"the last request begins after {days:,.1f} days; at most {MOST_DAYS} are simulated",
            "a trace with --speed 10 or --limit 1000; a scenario with a higher rate",
        )
    return np.rint(due * PICOSECONDS).astype(np.int64)


def _counted(labels: "Iterable[int | str]") -> "Shorts":
    """Number labels from 0, in the order in which each first occurs."""
    numbers: dict[int | str, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], np.int32)
